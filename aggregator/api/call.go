package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/theazo/observability/shared/ids"
	"github.com/theazo/observability/shared/telemetry"
)

// maxQuery bounds the text of a query: 16 KiB.
const maxQuery = 16 << 10

// answerTime is what an answer may take from the request to its last byte; a
// stream sets its own deadline at each write.
const answerTime = 2 * time.Minute

// call is one request on its way.
type call struct {
	api     *API
	out     *recorder
	r       *http.Request
	id      string // req_…
	started time.Time
	stream  bool
	err     error // why it failed, for our log

	who        telemetry.Principal
	credential credential
	query      url.Values
}

// recorder remembers what was answered.
type recorder struct {
	http.ResponseWriter
	status int
	bytes  atomic.Int64 // a socket's subscriptions write at once
}

func (r *recorder) WriteHeader(status int) {
	if r.status == 0 && (status >= 200 || status == http.StatusSwitchingProtocols) {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(b []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	n, err := r.ResponseWriter.Write(b) //nolint:gosec // no answer with a caller's text is a page: each has its type, with nosniff
	r.bytes.Add(int64(n))
	return n, err
}

// Unwrap is for http.ResponseController.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

type callKey struct{}

func callOf(r *http.Request) *call {
	c, _ := r.Context().Value(callKey{}).(*call)
	return c
}

// ServeHTTP answers one request.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := &call{api: a, out: &recorder{ResponseWriter: w}, id: ids.New("req"), started: time.Now()}
	c.r = r.WithContext(context.WithValue(r.Context(), callKey{}, c))
	defer c.done()
	_ = http.NewResponseController(w).SetWriteDeadline(c.started.Add(answerTime)) // a writer without deadlines is no connection
	h := w.Header()
	h.Set("X-Request-Id", c.id)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	if c.https() {
		h.Set("Strict-Transport-Security", "max-age=31536000")
	}
	if strings.HasPrefix(r.URL.Path, "/v1/") {
		// The dashboard's pages say their own; data runs and embeds nothing.
		h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
	}
	if preflight := c.crossOrigin(); preflight {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	if err := a.cross.Check(r); err != nil {
		c.fail(&telemetry.Failure{Code: telemetry.Forbidden, Message: "A page of another origin may not do this. Its origin can be allowed in the aggregator's configuration.", Cause: err})
		return
	}
	a.mux.ServeHTTP(c.out, c.r)
}

// crossOrigin lets pages of allowed origins read the answer. It reports
// whether the request only asked for that.
func (c *call) crossOrigin() (preflight bool) {
	h := c.out.Header()
	h.Add("Vary", "Origin")
	origin := c.r.Header.Get("Origin")
	if origin == "" || !c.api.allowsOrigin(origin) || !strings.HasPrefix(c.r.URL.Path, "/v1/") {
		return false
	}
	// No Allow-Credentials: cookies stay with our own pages.
	h.Set("Access-Control-Allow-Origin", origin)
	h.Set("Access-Control-Expose-Headers", "X-Request-Id, Retry-After, Location, Idempotency-Replayed, X-Export-Lines, X-Export-Error")
	h.Set("Cross-Origin-Resource-Policy", "cross-origin")
	if c.r.Method != http.MethodOptions || c.r.Header.Get("Access-Control-Request-Method") == "" {
		return false
	}
	h.Set("Access-Control-Allow-Methods", "GET, POST")
	h.Set("Access-Control-Allow-Headers", "Authorization, Content-Type, Content-Encoding, Idempotency-Key, Last-Event-ID, X-SDK-Version")
	h.Set("Access-Control-Max-Age", "600")
	return true
}

// run takes a request through its line of the table.
func (c *call) run(rt *route) {
	c.stream = rt.stream
	err := c.parseQuery(rt.params)
	if err == nil {
		err = c.authenticate(rt)
	}
	if err == nil {
		err = rt.handle(c)
	}
	if err != nil {
		c.fail(err)
	}
}

// parseQuery refuses parameters that the route does not take.
func (c *call) parseQuery(allowed []string) error {
	if len(c.r.URL.RawQuery) > maxQuery {
		return statusError{telemetry.Failf(telemetry.InvalidRequest, "The query is longer than %d bytes.", maxQuery), http.StatusRequestURITooLong}
	}
	q, err := url.ParseQuery(c.r.URL.RawQuery)
	if err != nil {
		return &telemetry.Failure{Code: telemetry.InvalidRequest, Message: "The query cannot be read: percent-encode its values.", Cause: err}
	}
	var bad []telemetry.FieldError
	for name := range q {
		if !slices.Contains(allowed, name) {
			bad = append(bad, telemetry.FieldError{Field: clip(name, 64), Detail: unknownDetail(allowed)})
		}
	}
	if len(bad) > 0 {
		slices.SortFunc(bad, func(a, b telemetry.FieldError) int { return strings.Compare(a.Field, b.Field) })
		return badFields(bad[:min(len(bad), 20)])
	}
	c.query = q
	return nil
}

func unknownDetail(allowed []string) string {
	if len(allowed) == 0 {
		return "is not known here: this call takes no parameters"
	}
	return "is not known here: use " + strings.Join(allowed, ", ")
}

// clip cuts what a caller wrote before it is shown.
func clip(s string, n int) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + "…"
}

// done writes the access log and the metrics, and turns a panic into a 500.
func (c *call) done() {
	p := recover()
	broken := p == http.ErrAbortHandler //nolint:errorlint // the value that net/http itself compares
	if p != nil && !broken {
		c.api.Log.Error("a request panicked", "request_id", c.id, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
		c.fail(fmt.Errorf("api: panic: %v", p))
	}
	status := c.out.status
	if status == 0 && c.r.Context().Err() != nil {
		status = 499 // the client left first
	}
	pattern := c.r.Pattern
	if pattern == "" {
		pattern = "none"
	}
	took := time.Since(c.started)
	c.api.metrics.requests.WithLabelValues(pattern, strconv.Itoa(status)).Inc()
	if !c.stream {
		c.api.metrics.duration.WithLabelValues(pattern).Observe(took.Seconds())
	}
	c.log(status, took)
	if broken {
		panic(p)
	}
}

func (c *call) log(status int, took time.Duration) {
	path := scrub(clip(c.r.URL.Path, 200))
	args := []any{
		"request_id", c.id, "method", c.r.Method, "path", path, "query", redact(c.r.URL.RawQuery),
		"status", status, "bytes", c.out.bytes.Load(), "duration_ms", took.Milliseconds(), "org", c.who.Org, "key", c.who.KeyID,
	}
	switch {
	case c.err != nil && status >= http.StatusInternalServerError && !errors.Is(c.err, context.Canceled):
		c.api.Log.Error("request failed", append(args, "error", scrub(c.err.Error()))...)
	case c.err != nil:
		c.api.Log.Info("request answered with an error", append(args, "error", scrub(c.err.Error()))...)
	case strings.HasPrefix(path, "/v1/"):
		c.api.Log.Info("request", args...)
	default:
		c.api.Log.Debug("request", args...)
	}
}

// redact hides the values of parameters that can hold a credential, however
// they are spelled, and cuts long queries.
func redact(rawQuery string) string {
	if rawQuery == "" {
		return ""
	}
	pairs := strings.Split(clip(rawQuery, 500), "&")
	for i, pair := range pairs {
		name, value, _ := strings.Cut(pair, "=")
		plain, err := url.QueryUnescape(name)
		hidden, errValue := url.QueryUnescape(value)
		switch {
		case err != nil || errValue != nil || holdsCredential(name) || holdsCredential(plain):
			pairs[i] = "redacted"
		case strings.Contains(strings.ToLower(plain), "token") || holdsCredential(hidden):
			pairs[i] = clip(strings.Map(printable, name), 20) + "=redacted"
		}
	}
	return strings.Join(pairs, "&")
}

func printable(r rune) rune {
	if r < ' ' || r == 0x7f {
		return -1
	}
	return r
}

// credentials matches text that starts like one of ours.
var credentials = regexp.MustCompile(`th(_live|_test|z|c|j)_[0-9A-Za-z_]*`)

// scrub hides what looks like a credential: callers put them into places that
// errors repeat.
func scrub(text string) string { return credentials.ReplaceAllString(text, "redacted") }

func holdsCredential(text string) bool { return credentials.MatchString(text) }
