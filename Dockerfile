# The images of both daemons, from scratch: the program, the CA bundle, and an
# empty state directory. Go cross-compiles, so nothing is built in here, no base
# image is pulled, and the same file makes every architecture:
#
#   make image               build, run and save both images for this machine
#   make image ARCH=arm64    the same for another
#
# packaging/image makes the context, dist/image: linux-ARCH/{agentd,aggregator},
# ca-certificates.crt, and for each daemon etc-NAME/ and state-NAME/.
#
# agentd reads the engine it is pointed at: mount /var/run/docker.sock and, for
# the log files, Docker's data root read-only (/var/lib/docker/containers).
# aggregator has no PostgreSQL in its image, so it cannot keep a private
# cluster: give it a DSN (AGGREGATOR_DATABASE_DSN, or database.dsn in its file).

FROM scratch AS agentd
ARG TARGETARCH
ARG VERSION=dev
LABEL org.opencontainers.image.source=https://github.com/theazo/observability \
      org.opencontainers.image.version=$VERSION \
      org.opencontainers.image.licenses=Apache-2.0
COPY ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY etc-agentd/ /etc/
COPY --chown=65532:65532 state-agentd/ /var/lib/
COPY linux-${TARGETARCH}/agentd /usr/bin/agentd
USER 65532:65532
VOLUME /var/lib/agentd
ENTRYPOINT ["/usr/bin/agentd"]
CMD ["run"]

FROM scratch AS aggregator
ARG TARGETARCH
ARG VERSION=dev
LABEL org.opencontainers.image.source=https://github.com/theazo/observability \
      org.opencontainers.image.version=$VERSION \
      org.opencontainers.image.licenses=Apache-2.0
COPY ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY etc-aggregator/ /etc/
COPY --chown=65532:65532 state-aggregator/ /var/lib/
COPY linux-${TARGETARCH}/aggregator /usr/bin/aggregator
USER 65532:65532
# Inside a container the loopback address is nobody's.
ENV AGGREGATOR_LISTEN_API=:8080 AGGREGATOR_LISTEN_ADMIN=:9090
VOLUME /var/lib/aggregator
EXPOSE 8080 9090 7443 7444
ENTRYPOINT ["/usr/bin/aggregator"]
CMD ["serve"]
