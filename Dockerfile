# Both daemons from source, as scratch images:
#
#   docker build --target agentd     -t theazo/agentd .
#   docker build --target aggregator -t theazo/aggregator .
#
# agentd reads the engine it is pointed at: mount /var/run/docker.sock and, for
# the log files, Docker's data root read-only (/var/lib/docker/containers).
# aggregator has no PostgreSQL in its image, so it cannot keep a private
# cluster: give it a DSN (AGGREGATOR_DATABASE_DSN, or database.dsn in its file).
#
# Where base images cannot be pulled, `make image` builds the same from bin/.

ARG GO_VERSION=1.26
ARG NODE_VERSION=22

FROM --platform=$BUILDPLATFORM node:${NODE_VERSION}-bookworm-slim AS dashboard
WORKDIR /src/dashboard
COPY dashboard/package.json dashboard/package-lock.json ./
RUN npm ci --no-audit --no-fund
COPY dashboard/ ./
RUN npm run build

FROM --platform=$BUILDPLATFORM golang:${GO_VERSION}-bookworm AS build
ARG TARGETOS TARGETARCH VERSION=dev
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
COPY --from=dashboard /src/dashboard/dist/ dashboard/dist/
RUN CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH go build -trimpath -buildvcs=false \
      -ldflags "-s -w -buildid= -X main.version=$VERSION" \
      -o /out/ ./agentd/cmd/agentd ./aggregator/cmd/aggregator
# What a volume starts with belongs to the image's user.
RUN install -d -m 0700 -o 65532 -g 65532 /state/agentd/var/lib/agentd /state/aggregator/var/lib/aggregator

FROM scratch AS agentd
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build --chown=65532:65532 /state/agentd/ /
COPY --from=build /out/agentd /usr/bin/agentd
USER 65532:65532
VOLUME /var/lib/agentd
ENTRYPOINT ["/usr/bin/agentd"]
CMD ["run"]

FROM scratch AS aggregator
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build --chown=65532:65532 /state/aggregator/ /
COPY --from=build /out/aggregator /usr/bin/aggregator
USER 65532:65532
# Inside a container the loopback address is nobody's.
ENV AGGREGATOR_LISTEN_API=:8080 AGGREGATOR_LISTEN_ADMIN=:9090
VOLUME /var/lib/aggregator
EXPOSE 8080 9090 7443 7444
ENTRYPOINT ["/usr/bin/aggregator"]
CMD ["serve"]
