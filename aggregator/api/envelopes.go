package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/theazo/observability/shared/stream"
	"github.com/theazo/observability/shared/telemetry"
)

const (
	// maxSeats bounds the subscriptions of one socket.
	maxSeats = 32
	// ackWindow is how many records go out unacknowledged to a subscription
	// that has begun to acknowledge.
	ackWindow = 5000
)

// clientMessage is what a client of theazo.logs.v1 sends.
type clientMessage struct {
	Type    string               `json:"type"`
	ID      string               `json:"id"`
	Token   string               `json:"token"`
	Filters map[string]oneOrMore `json:"filters"`
	After   string               `json:"after"`
	Tail    json.Number          `json:"tail"`
	Cursor  string               `json:"cursor"`
}

// oneOrMore is a text or a list of texts.
type oneOrMore []string

// UnmarshalJSON reads a text or a list of texts.
func (o *oneOrMore) UnmarshalJSON(b []byte) error {
	var one string
	if err := json.Unmarshal(b, &one); err == nil {
		*o = oneOrMore{one}
		return nil
	}
	var more []string
	if err := json.Unmarshal(b, &more); err != nil {
		return fmt.Errorf("a filter is a text or a list of texts: %w", err)
	}
	*o = more
	return nil
}

// envelopes speaks theazo.logs.v1: several subscriptions on one socket.
type envelopes struct {
	*socket
	ctx  context.Context // the socket's: subscriptions begin at messages and end with it
	to   bind
	fail context.CancelCauseFunc

	mu    sync.Mutex
	seats map[string]*seat
	owned bool // a subscription has the place that the socket itself was counted by
	wg    sync.WaitGroup
}

func (s *socket) envelopes(ctx context.Context, to bind) error {
	ctx, cancel := context.WithCancelCause(ctx)
	e := &envelopes{socket: s, ctx: ctx, to: to, fail: cancel, seats: make(map[string]*seat)}
	var reading sync.WaitGroup
	reading.Go(func() { cancel(s.receive(e.handle)) })
	err := e.keepAlive()
	cancel(err)
	_ = s.conn.Close(closeCode(err), closeReason(err)) // ends receive; the client is told or has left
	reading.Wait()
	e.wg.Wait()
	if errors.Is(err, errLeft) {
		return nil
	}
	return err
}

// keepAlive pings until the socket ends, and returns why it did.
func (e *envelopes) keepAlive() error {
	beat := time.NewTicker(e.api.Heartbeat)
	defer beat.Stop()
	for {
		select {
		case <-e.ctx.Done():
			return context.Cause(e.ctx)
		case <-beat.C:
			if err := e.ping(e.ctx); err != nil {
				return err
			}
		}
	}
}

// firstMessage waits for the credential of a client that could not send it
// earlier.
func (s *socket) firstMessage() error {
	got := make(chan []byte, 1)
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		defer close(got)
		if _, b, err := s.conn.Read(context.WithoutCancel(s.r.Context())); err == nil {
			got <- b
		}
	})
	late := time.NewTimer(s.api.AuthTimeout)
	defer late.Stop()
	err := error(&closing{closeAuthTimeout, "no auth message came in time"})
	select {
	case message := <-got:
		return s.authenticateBy(message)
	case <-s.api.draining:
		err = errDraining
	case <-late.C:
	}
	_ = s.conn.Close(closeCode(err), closeReason(err)) // ends the read; the client is told or has left
	return err
}

func (s *socket) authenticateBy(message []byte) error {
	var m clientMessage
	if err := json.Unmarshal(message, &m); err != nil || m.Type != "auth" || m.Token == "" {
		return &closing{closeBadMessage, `the first message must be {"type":"auth","token":"…"}`}
	}
	shown := credential{kind: inURL, text: m.Token}
	who, err := s.api.principal(s.r.Context(), shown)
	if err != nil {
		return err
	}
	s.who, s.credential = who, shown
	return permit(&who, telemetry.LogsRead)
}

// handle takes one message of the client.
func (e *envelopes) handle(b []byte) error {
	var m clientMessage
	d := json.NewDecoder(strings.NewReader(string(b)))
	d.DisallowUnknownFields()
	if err := d.Decode(&m); err != nil {
		return &closing{closeBadMessage, "not a message of " + protocolV1}
	}
	if m.ID == "" || len(m.ID) > telemetry.MaxIDLength {
		return &closing{closeBadMessage, fmt.Sprintf("id must have 1 to %d characters", telemetry.MaxIDLength)}
	}
	if m.Type == "subscribe" {
		if err := e.subscribe(&m); err != nil {
			return e.problem(m.ID, err)
		}
		return nil
	}
	e.mu.Lock()
	st := e.seats[m.ID]
	e.mu.Unlock()
	if st == nil {
		return e.problem(m.ID, telemetry.Failf(telemetry.NotFound, "There is no subscription with this id."))
	}
	switch m.Type {
	case "unsubscribe":
		st.cancel()
	case "pause":
		st.set(func() { st.paused = true })
	case "resume":
		st.set(func() { st.paused = false })
	case "ack":
		at, err := stream.ParseCursor(m.Cursor)
		if err != nil {
			return e.problem(m.ID, badFields([]telemetry.FieldError{{Field: "cursor", Detail: err.Error()}}))
		}
		st.ack(at.Position)
	default:
		return &closing{closeBadMessage, "unknown type of message"}
	}
	return nil
}

// query turns a subscribe message into the parameters of a stream, so that
// both are read by the same code.
func (m *clientMessage) query() (url.Values, error) {
	q := url.Values{}
	for name, values := range m.Filters {
		if !slices.Contains(filterParams, name) {
			return nil, badFields([]telemetry.FieldError{{Field: clip(name, 64), Detail: unknownDetail(filterParams)}})
		}
		if len(values) > 0 {
			q[name] = values
		}
	}
	if m.After != "" {
		q.Set("after", m.After)
	}
	if m.Tail != "" {
		q.Set("tail", m.Tail.String())
	}
	return q, nil
}

// place counts a subscription in: the first on a socket has the socket's own
// place, so that a client of one stream counts once, however it is connected.
func (e *envelopes) place() (leave func(), err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.owned {
		return e.api.admit(e.who.Org)
	}
	e.owned = true
	return func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.owned = false
	}, nil
}

func (e *envelopes) subscribe(m *clientMessage) error {
	q, err := m.query()
	if err != nil {
		return err
	}
	v, err := e.view(&params{values: q, env: &e.who.Env}, "", e.to)
	if err != nil {
		return err
	}
	leave, err := e.place()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(e.ctx)
	st := &seat{envelopes: e, id: m.ID, cancel: cancel, change: make(chan struct{}, 1), filter: &v.filter}
	e.mu.Lock()
	_, taken := e.seats[m.ID]
	full := len(e.seats) >= maxSeats
	if !taken && !full {
		e.seats[m.ID] = st
	}
	e.mu.Unlock()
	if taken || full {
		cancel()
		leave()
		if full {
			return telemetry.Failf(telemetry.RateLimited, "A socket holds at most %d subscriptions.", maxSeats)
		}
		return telemetry.Failf(telemetry.Conflict, "There is a subscription with this id: unsubscribe it first.")
	}
	e.wg.Go(func() {
		defer leave()
		defer cancel()
		st.run(ctx, v)
	})
	return nil
}

// problem tells the client what is wrong with one subscription.
func (e *envelopes) problem(id string, err error) error {
	f, _ := failureOf(err)
	if f.Code == telemetry.Internal {
		e.api.Log.Error("a subscription failed", "request_id", e.call.id, "error", err)
	}
	type problem struct {
		Code    telemetry.Code         `json:"code"`
		Message string                 `json:"message"`
		Errors  []telemetry.FieldError `json:"errors,omitempty"`
	}
	return e.envelope("error", id, "problem", problem{f.Code, f.Message, f.Fields})
}

// envelope writes {"type":…,"sub":…,"<name>":<value>}.
func (e *envelopes) envelope(kind, id, name string, value any) error {
	data, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("api: encode an envelope: %w", err)
	}
	b := appendHead(nil, kind, id)
	b = append(telemetry.AppendString(append(b, ','), name), ':')
	return e.send(append(append(b, data...), '}'))
}

func appendHead(b []byte, kind, id string) []byte {
	b = telemetry.AppendString(append(b, `{"type":`...), kind)
	return telemetry.AppendString(append(b, `,"sub":`...), id)
}

// seat is one subscription: a sink.
type seat struct {
	*envelopes
	id     string
	cancel context.CancelFunc
	change chan struct{}
	filter *telemetry.LogFilter
	buf    []byte // nil between writes

	state   sync.Mutex
	paused  bool
	credit  bool    // the client acknowledges
	unacked []int64 // positions, rising
}

// run follows the view until it ends, and takes the seat's id back.
func (st *seat) run(ctx context.Context, v *view) {
	err := v.open(ctx, st.call)
	if err == nil {
		err = st.follow(ctx, v, st)
		v.reader.Close()
	}
	st.envelopes.mu.Lock()
	delete(st.seats, st.id)
	st.envelopes.mu.Unlock()
	switch {
	case err == nil || ctx.Err() != nil && st.ctx.Err() == nil: // ended, or unsubscribed
	case errors.Is(err, stream.ErrClosed):
		st.fail(err) // the whole socket comes back
	case st.ctx.Err() == nil:
		if err := st.problem(st.id, err); err != nil {
			st.fail(err)
		}
	}
}

func (st *seat) set(change func()) {
	st.state.Lock()
	change()
	st.state.Unlock()
	select {
	case st.change <- struct{}{}:
	default:
	}
}

func (st *seat) ack(position int64) {
	st.set(func() {
		st.credit = true
		i, found := slices.BinarySearch(st.unacked, position)
		if found {
			i++
		}
		st.unacked = st.unacked[i:]
	})
}

func (st *seat) wants() bool {
	st.state.Lock()
	defer st.state.Unlock()
	return !st.paused && (!st.credit || len(st.unacked) < ackWindow)
}

func (st *seat) changed() <-chan struct{} { return st.change }

func (st *seat) ready(f *telemetry.LogFilter, at stream.Cursor) error {
	data, err := json.Marshal(f)
	if err != nil {
		return fmt.Errorf("api: encode a filter: %w", err)
	}
	b := append(appendHead(nil, "ready", st.id), `,"filters":`...)
	b = append(append(b, data...), `,"cursor":"`...)
	return st.send(append(at.Append(b), `"}`...))
}

func (st *seat) heartbeat(at stream.Cursor) error {
	b := append(appendHead(nil, "heartbeat", st.id), `,"cursor":"`...)
	b = append(at.Append(b), `","time":"`...)
	return st.send(append(telemetry.AppendTime(b, time.Now()), `"}`...))
}

func (st *seat) end(at stream.Cursor) error {
	b := append(appendHead(nil, "end", st.id), `,"cursor":"`...)
	return st.send(append(at.Append(b), `"}`...))
}

// batch writes the records as arrays of envelopes.
func (st *seat) batch(b *stream.Batch) error {
	if b.Missed != nil {
		if err := st.envelope("gap", st.id, "gap", shapeMissed(b.Missed, st.filter)); err != nil {
			return err
		}
	}
	st.buf = append(takeBuffer(), '[')
	defer func() {
		giveBuffer(st.buf)
		st.buf = nil
	}()
	at := b.Through
	for i := range b.Records {
		r := &b.Records[i]
		at.Position = r.Position
		if err := st.record(r, at); err != nil {
			return err
		}
		st.state.Lock()
		if st.credit {
			st.unacked = append(st.unacked, r.Position)
		}
		st.state.Unlock()
		if len(st.buf) >= flushAt || i == len(b.Records)-1 {
			st.buf[len(st.buf)-1] = ']' // the last comma
			if err := st.send(st.buf); err != nil {
				return err
			}
			st.buf = append(st.buf[:0], '[')
		}
	}
	return nil
}

func (st *seat) record(r *stream.Record, at stream.Cursor) error {
	kind, name, data := "log", `","entry":`, r.JSON
	if r.Gap != nil {
		var err error
		if data, err = json.Marshal(shapeGap(r.Gap)); err != nil {
			return fmt.Errorf("api: encode a gap: %w", err)
		}
		kind, name = "gap", `","gap":`
	}
	st.buf = append(appendHead(st.buf, kind, st.id), `,"cursor":"`...)
	st.buf = append(at.Append(st.buf), name...)
	st.buf = append(append(st.buf, data...), "},"...)
	return nil
}
