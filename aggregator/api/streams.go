package api

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/theazo/observability/shared/stream"
	"github.com/theazo/observability/shared/telemetry"
)

// maxTail bounds the backlog that a stream may start with.
const maxTail = 1000

// Why the server closes a stream that its client would have kept.
var (
	errDraining = errors.New("this replica is stopping")
	errAged     = errors.New("the stream is old enough")
	errRevoked  = errors.New("the credential is no longer valid")
)

// view is a stream to be opened: what it shows and where it starts.
type view struct {
	filter telemetry.LogFilter
	agent  telemetry.AgentID // the one agent of an agent's stream
	after  *stream.Cursor
	tail   int
	ended  bool // the client was already told that the stream ended

	backlog []stream.Record
	reader  stream.Reader
}

// bind ties a view to the resource in the path.
type bind func(*call, *view) error

func (c *call) streamLogs() error { return c.openStream(func(*call, *view) error { return nil }) }

func (c *call) streamAgent() error {
	return c.openStream(func(c *call, v *view) error {
		found, err := c.agent(c.r.PathValue("id"))
		if err != nil {
			return err
		}
		if c.who.OnlySession != "" && found.Session != c.who.OnlySession {
			return notHere("agent", string(found.ID))
		}
		v.agent = found.ID
		return narrow(&v.filter.Agents, found.ID, "agent")
	})
}

func (c *call) streamSession() error {
	return c.openStream(func(c *call, v *view) error {
		found, err := c.session(c.r.PathValue("id"))
		if err != nil {
			return err
		}
		return narrow(&v.filter.Sessions, found.ID, "session")
	})
}

// narrow leaves of a filter's list the resource that the path names. A query
// that asks for others alone would never be answered.
func narrow[T ~string](list *[]T, id T, what string) error {
	if len(*list) > 0 && !slices.Contains(*list, id) {
		f := telemetry.Failf(telemetry.Unprocessable, "The query asks for other %ss than %s, which the path names: leave %s: out of it.", what, id, what)
		f.Fields = []telemetry.FieldError{{Field: "q", Detail: "asks for another " + what + " than the path"}}
		return f
	}
	*list = []T{id}
	return nil
}

// openStream is WebSocket where the client asks for it, else SSE.
func (c *call) openStream(to bind) error {
	if isUpgrade(c.r) {
		return c.socket(to)
	}
	return c.events(to)
}

// limit keeps a view within what a stream token was made for.
func (c *call) limit(v *view) error {
	if only := c.who.OnlyAgent; only != "" {
		if len(v.filter.Agents) > 0 && !slices.Contains(v.filter.Agents, only) {
			return notHere("agent", string(v.filter.Agents[0]))
		}
		v.filter.Agents = []telemetry.AgentID{only}
	}
	if only := c.who.OnlySession; only != "" {
		if len(v.filter.Sessions) > 0 && !slices.Contains(v.filter.Sessions, only) {
			return notHere("session", string(v.filter.Sessions[0]))
		}
		v.filter.Sessions = []telemetry.SessionID{only}
	}
	return nil
}

// endedMark follows the cursor in the id of an end event, so that a browser
// that reconnects, as EventSource does, is known to have seen the end.
const endedMark = ".end"

// view reads what a stream shows and where it starts: at a browser's
// Last-Event-ID, where there is one, because its URL stays as it was.
func (c *call) view(p *params, lastEventID string, to bind) (*view, error) {
	v := &view{filter: p.filter()}
	name, text := "Last-Event-ID", lastEventID
	for _, other := range []string{"lastEventId", "after"} {
		if t, given := p.one(other); given && text == "" {
			name, text = other, t
		}
	}
	v.tail = p.number("tail", 0, 0, maxTail, "")
	if text != "" {
		text, v.ended = strings.CutSuffix(text, endedMark)
		at, err := stream.ParseCursor(text)
		if err != nil {
			p.fail(name, "%v", err)
		}
		v.after, v.tail = &at, 0
	}
	if err := p.err(); err != nil {
		return nil, err
	}
	if err := to(c, v); err != nil {
		return nil, err
	}
	return v, c.limit(v)
}

// open subscribes. The caller closes v.reader.
func (v *view) open(ctx context.Context, c *call) error {
	if v.tail > 0 {
		if err := v.readBacklog(ctx, c); err != nil {
			return err
		}
	}
	r, err := c.api.Hub.Subscribe(ctx, c.who.Scope, v.filter, v.after)
	if errors.Is(err, stream.ErrClosed) {
		return &telemetry.Failure{Code: telemetry.Unavailable, Message: "Live streams start anew: connect again.", RetryAfter: time.Second, Cause: err}
	}
	if err != nil {
		return fmt.Errorf("api: open a stream: %w", err)
	}
	v.reader = r
	return nil
}

// readBacklog reads the newest lines; the stream goes on behind the snapshot
// that they are of. They are handed out by position, as a stream is, so that
// a client can resume in their middle.
func (v *view) readBacklog(ctx context.Context, c *call) error {
	epoch, err := c.api.Store.StreamEpoch(ctx)
	if err != nil {
		return fmt.Errorf("api: epoch of the streams: %w", err)
	}
	found, err := c.api.Store.QueryLogs(ctx, c.who.Scope, &telemetry.LogQuery{LogFilter: v.filter, Limit: v.tail})
	if err != nil {
		return fmt.Errorf("api: backlog of a stream: %w", err)
	}
	first := found.Stream + 1
	for i := range found.Entries {
		e := &found.Entries[i]
		e.Cursor = stream.Cursor{Epoch: epoch, Position: e.Position}.String()
		v.backlog = append(v.backlog, stream.Record{Position: e.Position, JSON: e.AppendJSON(nil)})
		first = min(first, e.Position)
	}
	for i := range found.Gaps {
		if g := &found.Gaps[i]; g.Position > first {
			g.Cursor = stream.Cursor{Epoch: epoch, Position: g.Position}.String()
			v.backlog = append(v.backlog, stream.Record{Position: g.Position, Gap: g})
		}
	}
	slices.SortFunc(v.backlog, func(a, b stream.Record) int { return cmp.Compare(a.Position, b.Position) })
	v.after = &stream.Cursor{Epoch: epoch, Position: found.Stream}
	return nil
}

// buffers are what writes are made in: a stream holds one only while it
// writes, so that a thousand quiet ones hold none.
var buffers = sync.Pool{New: func() any { return new([]byte) }}

// takeBuffer returns an empty buffer.
func takeBuffer() []byte {
	b, _ := buffers.Get().(*[]byte)
	return (*b)[:0]
}

// giveBuffer gives a buffer back for others, unless it is a rare giant.
func giveBuffer(b []byte) {
	if cap(b) > 0 && cap(b) <= 4*flushAt {
		buffers.Put(&b)
	}
}

// sink writes a stream to a client, in the form that the client speaks.
type sink interface {
	ready(f *telemetry.LogFilter, at stream.Cursor) error
	batch(b *stream.Batch) error
	heartbeat(at stream.Cursor) error
	end(at stream.Cursor) error
	// wants reports whether the client takes records now; changed delivers
	// when the answer may be another one.
	wants() bool
	changed() <-chan struct{}
}

// follow writes an open view to a client until one of them ends. A nil error
// says that the stream itself is over.
func (c *call) follow(ctx context.Context, v *view, out sink) error {
	start := v.reader.Start()
	if len(v.backlog) > 0 {
		start.Position = v.backlog[0].Position - 1
	}
	if err := out.ready(&v.filter, start); err != nil {
		return err
	}
	if len(v.backlog) > 0 {
		b := stream.Batch{Records: v.backlog, Through: v.reader.Start()}
		v.backlog = nil
		if err := c.write(out, &b); err != nil {
			return err
		}
	}
	beat := time.NewTicker(c.api.Heartbeat)
	defer beat.Stop()
	last := time.Now()
	for {
		ready := v.reader.Ready()
		if !out.wants() {
			ready = nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-out.changed():
		case <-ready:
			b, err := v.reader.Take(ctx)
			if err != nil {
				return err
			}
			if len(b.Records) == 0 && b.Missed == nil {
				continue
			}
			last = time.Now()
			if err := c.write(out, &b); err != nil {
				return err
			}
		case <-beat.C:
			if v.agent != "" && time.Since(last) >= c.api.EndAfter && c.finished(ctx, v.agent) {
				return out.end(v.reader.Looked())
			}
			if err := out.heartbeat(v.reader.Looked()); err != nil {
				return err
			}
		}
	}
}

func (c *call) write(out sink, b *stream.Batch) error {
	m := c.api.metrics.records
	if b.Missed != nil {
		m.WithLabelValues("missed").Inc()
	}
	m.WithLabelValues("record").Add(float64(len(b.Records)))
	return out.batch(b)
}

// finished reports whether an agent has come to its end.
func (c *call) finished(ctx context.Context, id telemetry.AgentID) bool {
	a, err := c.api.Store.Agent(ctx, c.who.Scope, id)
	return err == nil && (a.Status == telemetry.AgentCompleted || a.Status == telemetry.AgentFailed)
}

// guarded runs a stream under the watch over its credential, its age and the
// server's end. The cause of the context's end is one of this file's errors.
func (c *call) guarded(run func(ctx context.Context) error) error {
	ctx, cancel := context.WithCancelCause(c.r.Context())
	var wg sync.WaitGroup
	wg.Go(func() { cancel(c.watch(ctx)) })
	defer wg.Wait()
	defer cancel(nil)
	return run(ctx)
}

// watch returns why a stream has to end.
func (c *call) watch(ctx context.Context) error {
	life := time.NewTimer(jitter(c.api.StreamLife))
	defer life.Stop()
	recheck := time.NewTicker(c.api.Recheck)
	defer recheck.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-c.api.draining:
			return errDraining
		case <-life.C:
			return errAged
		case <-recheck.C:
			if c.revoked(ctx) {
				return errRevoked
			}
		}
	}
}

// jitter is within 10 % of d, so that streams opened together do not all
// come back together.
func jitter(d time.Duration) time.Duration {
	return d - d/10 + rand.N(d/5+1) //nolint:gosec // no secret: it spreads load
}

// revoked asks again whether the credential holds. A database that is away is
// no reason to end streams.
func (c *call) revoked(ctx context.Context) bool {
	if c.credential.kind == noCredential {
		return false // not shown yet: it has its own deadline
	}
	who, err := c.api.principal(ctx, c.credential)
	if err != nil {
		code := telemetry.CodeOf(err)
		return code == telemetry.Unauthorized || code == telemetry.Forbidden || code == telemetry.NotFound
	}
	return who.Scope != c.who.Scope || !who.May(telemetry.LogsRead)
}

// missedJSON tells a client what it did not get.
type missedJSON struct {
	From   stream.Cursor       `json:"from"`
	To     stream.Cursor       `json:"to"`
	Count  int64               `json:"count"`
	Reason telemetry.GapReason `json:"reason"`
	Since  telemetry.Timestamp `json:"since,omitzero"`
	Until  telemetry.Timestamp `json:"until,omitzero"`
	Href   string              `json:"href,omitempty"` // fetches what was missed, and maybe more around it
}

func shapeMissed(m *stream.Missed, f *telemetry.LogFilter) missedJSON {
	j := missedJSON{From: m.From, To: m.To, Count: m.Count, Reason: m.Reason, Since: telemetry.Timestamp(m.Since), Until: telemetry.Timestamp(m.Until)}
	if !m.Since.IsZero() {
		q := filterQuery(f)
		q.Set("since", m.Since.UTC().Format(telemetry.TimeFormat))
		q.Set("until", m.Until.UTC().Add(time.Millisecond).Format(telemetry.TimeFormat)) // exclusive, and cut to milliseconds
		q.Set("order", telemetry.OldestFirst.String())
		q.Set("limit", strconv.Itoa(telemetry.MaxLimit))
		j.Href = "/v1/logs?" + q.Encode()
	}
	return j
}

// filterQuery writes a filter as the parameters that it was read from.
func filterQuery(f *telemetry.LogFilter) url.Values {
	q := url.Values{}
	add(q, "sessionId", f.Sessions)
	add(q, "agentId", f.Agents)
	add(q, "nodeId", f.Nodes)
	add(q, "sandboxId", f.Sandbox)
	add(q, "traceId", f.Traces)
	add(q, "spanId", f.Spans)
	add(q, "userId", f.Users)
	for _, v := range f.Provider {
		q.Add("provider", v.String())
	}
	for _, v := range f.Streams {
		q.Add("stream", v.String())
	}
	for _, v := range f.Sources {
		q.Add("source", v.String())
	}
	for _, v := range f.Levels {
		q.Add("level", v.String())
	}
	if f.Search != "" {
		q.Set("search", f.Search)
	}
	if f.Where != nil {
		q.Set("q", f.Where.String())
	}
	return q
}

func add[T ~string](q url.Values, name string, values []T) {
	for _, v := range values {
		q.Add(name, string(v))
	}
}

func eventHeaders(h http.Header) {
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-cache, no-transform")
	h.Set("X-Accel-Buffering", "no")
}
