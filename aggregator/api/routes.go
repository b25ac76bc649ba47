package api

import (
	"net/http"
	"slices"

	"github.com/theazo/observability/shared/telemetry"
)

// permission is what a route asks of its caller: one of a key's, or one of
// these two. The zero value is no answer, and a fault that a test finds.
type permission = telemetry.Permission

const (
	public   permission = "public"    // no credential is looked at
	signedIn permission = "signed-in" // any valid credential
)

// route is one line of the table.
type route struct {
	method, pattern string
	need            permission
	params          []string // the query parameters that it takes
	stream          bool     // a stream: takes a credential in the URL, never compressed or cut short
	handle          func(*call) error
}

// filterParams are the parameters of telemetry.LogFilter; streamParams say
// where a stream starts and who asks.
var (
	filterParams = []string{
		"sessionId", "agentId", "userId", "provider", "nodeId", "sandboxId", "traceId", "spanId",
		"stream", "source", "level", "minLevel", "search", "q",
	}
	streamParams = []string{"after", "lastEventId", "tail", "token"}
)

// routes is the table: everything that can be called, and what it takes.
func routes() []route {
	return []route{
		{method: "POST", pattern: "/v1/auth/sign-in", need: public, handle: (*call).signIn},
		{method: "POST", pattern: "/v1/auth/sign-out", need: public, handle: (*call).signOut},
		{method: "GET", pattern: "/v1/me", need: signedIn, handle: (*call).me},

		{
			method: "GET", pattern: "/v1/logs", need: telemetry.LogsRead, handle: (*call).queryLogs,
			params: join(filterParams, "since", "until", "limit", "offset", "cursor", "order", "total"),
		},
		{method: "POST", pattern: "/v1/logs", need: telemetry.LogsWrite, handle: (*call).push},
		{method: "POST", pattern: "/v1/traces", need: telemetry.TracesWrite, handle: (*call).push},
		{method: "POST", pattern: "/v1/metrics", need: telemetry.TracesWrite, handle: (*call).push},
		{method: "POST", pattern: "/otlp/v1/logs", need: telemetry.LogsWrite, handle: (*call).push},
		{method: "POST", pattern: "/otlp/v1/traces", need: telemetry.TracesWrite, handle: (*call).push},
		{method: "POST", pattern: "/otlp/v1/metrics", need: telemetry.TracesWrite, handle: (*call).push},
		{
			method: "GET", pattern: "/v1/logs/count", need: telemetry.LogsRead, handle: (*call).countLines,
			params: join(filterParams, "since", "until", "countCursor"),
		},
		{
			method: "GET", pattern: "/v1/logs/histogram", need: telemetry.LogsRead, handle: (*call).histogram,
			params: join(filterParams, "since", "until", "interval"),
		},
		{
			method: "GET", pattern: "/v1/logs/facets", need: telemetry.LogsRead, handle: (*call).facets,
			params: join(filterParams, "since", "until", "fields", "limit"),
		},
		{method: "GET", pattern: "/v1/logs/{id}", need: telemetry.LogsRead, handle: (*call).getLine},
		{method: "GET", pattern: "/v1/logs/{id}/context", need: telemetry.LogsRead, params: []string{"before", "after"}, handle: (*call).lineContext},
		{
			method: "GET", pattern: "/v1/logs/stream", need: telemetry.LogsRead, stream: true, handle: (*call).streamLogs,
			params: join(filterParams, streamParams...),
		},
		{
			method: "GET", pattern: "/v1/agents/{id}/logs/stream", need: telemetry.LogsRead, stream: true, handle: (*call).streamAgent,
			params: without(join(filterParams, streamParams...), "agentId"),
		},
		{
			method: "GET", pattern: "/v1/sessions/{id}/logs/stream", need: telemetry.LogsRead, stream: true, handle: (*call).streamSession,
			params: without(join(filterParams, streamParams...), "sessionId"),
		},
		{method: "POST", pattern: "/v1/stream-tokens", need: telemetry.LogsRead, handle: (*call).createStreamToken},

		{method: "GET", pattern: "/v1/agents", need: telemetry.LogsRead, params: []string{"sessionId", "status", "limit", "cursor"}, handle: (*call).listAgents},
		{method: "GET", pattern: "/v1/agents/{id}", need: telemetry.LogsRead, handle: (*call).getAgent},
		{method: "GET", pattern: "/v1/agents/{id}/events", need: telemetry.LogsRead, params: []string{"limit", "cursor"}, handle: (*call).listEvents},
		{method: "GET", pattern: "/v1/sessions", need: telemetry.LogsRead, params: []string{"status", "limit", "cursor"}, handle: (*call).listSessions},
		{method: "GET", pattern: "/v1/sessions/{id}", need: telemetry.LogsRead, handle: (*call).getSession},
		{method: "GET", pattern: "/v1/nodes", need: telemetry.NodesRead, handle: (*call).listNodes},
		{method: "GET", pattern: "/v1/nodes/{id}/ledger", need: telemetry.NodesRead, handle: (*call).nodeLedger},

		{method: "POST", pattern: "/v1/erasures", need: telemetry.DataErase, handle: (*call).erase},
		{method: "GET", pattern: "/v1/erasures", need: telemetry.DataErase, params: []string{"limit", "cursor"}, handle: (*call).listErasures},
		{method: "GET", pattern: "/v1/erasures/{id}", need: telemetry.DataErase, handle: (*call).getErasure},

		{method: "GET", pattern: "/healthz", need: public, handle: (*call).healthy},
		{method: "GET", pattern: "/readyz", need: public, handle: (*call).ready},
	}
}

func join(list []string, more ...string) []string {
	return append(slices.Clip(list), more...)
}

func without(list []string, name string) []string {
	kept := make([]string, 0, len(list))
	for _, n := range list {
		if n != name {
			kept = append(kept, n)
		}
	}
	return kept
}

// register puts the table, the answer to what is not in it, and the
// dashboard on the mux.
func (a *API) register(table []route) {
	for _, rt := range table {
		a.mux.HandleFunc(rt.method+" "+rt.pattern, func(_ http.ResponseWriter, r *http.Request) { callOf(r).run(&rt) })
	}
	a.mux.HandleFunc("/v1/", func(_ http.ResponseWriter, r *http.Request) { callOf(r).unknown() })
	if a.Dashboard != nil {
		a.mux.Handle("/", a.Dashboard)
	} else {
		a.mux.HandleFunc("/", func(_ http.ResponseWriter, r *http.Request) { callOf(r).unknown() })
	}
}

// unknown answers 405 where another method would be right, else 404.
func (c *call) unknown() {
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		other := c.r.Clone(c.r.Context())
		other.Method = method
		if _, pattern := c.api.mux.Handler(other); method != c.r.Method && len(pattern) > len(method) && pattern[:len(method)] == method {
			c.out.Header().Set("Allow", method)
			c.fail(statusError{telemetry.Failf(telemetry.InvalidRequest, "%s is called with %s, not %s.", c.r.URL.Path, method, c.r.Method), http.StatusMethodNotAllowed})
			return
		}
	}
	c.fail(telemetry.Failf(telemetry.NotFound, "There is nothing at this path."))
}

// healthy says that the process answers.
func (c *call) healthy() error {
	c.send(http.StatusOK, []byte(`{"status":"ok"}`))
	return nil
}

// ready says whether requests can be served.
func (c *call) ready() error {
	if c.api.Ready != nil {
		if err := c.api.Ready(c.r.Context()); err != nil {
			return &telemetry.Failure{Code: telemetry.Unavailable, Message: "The aggregator is not ready: its log says why.", Cause: err}
		}
	}
	c.send(http.StatusOK, []byte(`{"status":"ok"}`))
	return nil
}
