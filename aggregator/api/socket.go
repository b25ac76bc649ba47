package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"

	"github.com/theazo/observability/shared/stream"
	"github.com/theazo/observability/shared/telemetry"
)

// The sub-protocols: envelopes with subscriptions, and a way for browsers to
// send a token, which is never chosen.
const (
	protocolV1    = "theazo.logs.v1"
	tokenProtocol = "theazo.token."
)

// Close codes beside the standard ones.
const (
	closeBadMessage  websocket.StatusCode = 4400
	closeAuth        websocket.StatusCode = 4401
	closeForbidden   websocket.StatusCode = 4403
	closeAuthTimeout websocket.StatusCode = 4408
	closeTooMany     websocket.StatusCode = 4429
)

// maxMessage bounds what a client may send at once.
const maxMessage = 64 << 10

// isUpgrade reports whether the request asks for a WebSocket.
func isUpgrade(r *http.Request) bool { return strings.EqualFold(r.Header.Get("Upgrade"), "websocket") }

// offered returns the sub-protocols that the client offers.
func offered(r *http.Request) []string {
	var all []string
	for _, h := range r.Header.Values("Sec-WebSocket-Protocol") {
		for p := range strings.SplitSeq(h, ",") {
			all = append(all, strings.TrimSpace(p))
		}
	}
	return all
}

// offeredToken is the credential that a browser sends as a sub-protocol.
func offeredToken(r *http.Request) string {
	for _, p := range offered(r) {
		if token, ok := strings.CutPrefix(p, tokenProtocol); ok {
			return token
		}
	}
	return ""
}

// wantsV1 reports whether the client speaks envelopes; then its first message
// may bring the credential.
func wantsV1(r *http.Request) bool { return isUpgrade(r) && slices.Contains(offered(r), protocolV1) }

// checkOrigin keeps pages of other sites from opening sockets with our
// visitor's cookie, and those that were not allowed from opening any.
func (c *call) checkOrigin() error {
	origin := c.r.Header.Get("Origin")
	if origin == "" || c.api.allowsOrigin(origin) {
		return nil
	}
	if u, err := url.Parse(origin); err == nil && strings.EqualFold(u.Host, c.r.Host) {
		return nil
	}
	return telemetry.Failf(telemetry.Forbidden, "Pages of the origin %s may not open streams. It can be allowed in the aggregator's configuration.", clip(origin, 100))
}

// socket serves a stream as WebSocket: each message one LogEntry, or
// envelopes where the client offered theazo.logs.v1.
func (c *call) socket(to bind) error {
	if err := c.checkOrigin(); err != nil {
		return err
	}
	v1 := wantsV1(c.r)
	var v *view
	if !v1 {
		var err error
		if v, err = c.view(&params{values: c.query, env: &c.who.Env}, c.r.Header.Get("Last-Event-ID"), to); err != nil {
			return err
		}
		// Before the socket is open, so that its client misses nothing that
		// it does once it is.
		if err := v.open(c.r.Context(), c); err != nil {
			return err
		}
		defer v.reader.Close()
	}
	// The origin was checked above, by the one list that CORS goes by too.
	conn, err := websocket.Accept(c.out, c.r, &websocket.AcceptOptions{Subprotocols: []string{protocolV1}, InsecureSkipVerify: true})
	if err != nil {
		c.err = fmt.Errorf("api: accept a socket: %w", err) // it has answered
		return nil
	}
	defer func() { _ = conn.CloseNow() }()
	conn.SetReadLimit(maxMessage)
	s := &socket{call: c, conn: conn}
	err = s.serve(v, to)
	_ = conn.Close(closeCode(err), closeReason(err)) // the client is told or has left
	return c.ended(err)
}

// serve runs an accepted socket; v is nil where it speaks envelopes.
func (s *socket) serve(v *view, to bind) error {
	leave, err := s.api.admit(s.who.Org)
	if err != nil {
		return err
	}
	if s.credential.kind == noCredential {
		// Until it says who it is, a socket counts among those of nobody.
		err = s.firstMessage()
		leave()
		if err != nil {
			return err
		}
		if leave, err = s.api.admit(s.who.Org); err != nil {
			return err
		}
	}
	defer leave()
	return s.guarded(func(ctx context.Context) error {
		if v == nil {
			return s.envelopes(ctx, to)
		}
		return s.plain(ctx, v)
	})
}

// closing is an end of a socket with a code of its own.
type closing struct {
	code   websocket.StatusCode
	reason string
}

func (e *closing) Error() string { return fmt.Sprintf("socket closed with %d: %s", e.code, e.reason) }

// closeCode says to a client whether and when to come back.
func closeCode(err error) websocket.StatusCode {
	var own *closing
	switch {
	case err == nil:
		return websocket.StatusNormalClosure
	case errors.As(err, &own):
		return own.code
	case errors.Is(err, errRevoked):
		return closeAuth
	case errors.Is(err, errDraining), errors.Is(err, errAged), errors.Is(err, stream.ErrClosed):
		return websocket.StatusServiceRestart
	}
	switch telemetry.CodeOf(err) {
	case telemetry.RateLimited:
		return closeTooMany
	case telemetry.Unauthorized:
		return closeAuth
	case telemetry.Forbidden, telemetry.NotFound:
		return closeForbidden
	case telemetry.InvalidRequest:
		return closeBadMessage
	case telemetry.Unavailable:
		return websocket.StatusTryAgainLater
	default:
		return websocket.StatusInternalError
	}
}

// closeReason is at most 123 bytes, and nothing internal.
func closeReason(err error) string {
	var own *closing
	var f *telemetry.Failure
	switch {
	case err == nil:
		return "the stream is over"
	case errors.As(err, &own):
		return clip(own.reason, 110)
	case errors.Is(err, errRevoked), errors.Is(err, errDraining), errors.Is(err, errAged):
		return err.Error()
	case errors.As(err, &f):
		return clip(f.Message, 110)
	}
	return "connect again"
}

// socket is an open WebSocket.
type socket struct {
	*call
	conn *websocket.Conn
}

// send writes one message. The stream's own end must not tear it.
func (s *socket) send(message []byte) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.r.Context()), s.api.WriteTimeout)
	defer cancel()
	if err := s.conn.Write(ctx, websocket.MessageText, message); err != nil {
		return fmt.Errorf("api: write to a socket: %w", err)
	}
	s.out.bytes.Add(int64(len(message)))
	return nil
}

// ping fails where the client does not answer in time, and with its cause
// where ctx ends first.
func (s *socket) ping(ctx context.Context) error {
	answer, cancel := context.WithTimeout(ctx, s.api.WriteTimeout)
	defer cancel()
	err := s.conn.Ping(answer)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	}
	return fmt.Errorf("api: ping a socket: %w", err)
}

// errLeft says that the client closed the socket or was cut off.
var errLeft = errors.New("the client left")

// receive hands on what the client sends until it leaves. It ends with the
// connection, not with a context: a context would tear the connection before
// its close code is sent.
func (s *socket) receive(handle func([]byte) error) error {
	for {
		_, message, err := s.conn.Read(context.WithoutCancel(s.r.Context()))
		if err != nil {
			return errLeft
		}
		if err := handle(message); err != nil {
			return err
		}
	}
}

// plain writes each line as a message of its own and ignores what the client says.
func (s *socket) plain(ctx context.Context, v *view) error {
	ctx, cancel := context.WithCancelCause(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { cancel(s.receive(func([]byte) error { return nil })) })
	err := s.follow(ctx, v, &plainSink{s, ctx})
	_ = s.conn.Close(closeCode(err), closeReason(err)) // ends receive; the client is told or has left
	wg.Wait()
	cancel(nil)
	if errors.Is(err, errLeft) {
		return nil
	}
	return err
}

// plainSink writes lines; gaps come as a line of the system's.
type plainSink struct {
	*socket
	ctx context.Context // the stream's
}

func (s *plainSink) wants() bool                                     { return true }
func (s *plainSink) changed() <-chan struct{}                        { return nil }
func (s *plainSink) ready(*telemetry.LogFilter, stream.Cursor) error { return nil }
func (s *plainSink) heartbeat(stream.Cursor) error                   { return s.ping(s.ctx) }
func (s *plainSink) end(stream.Cursor) error                         { return nil }

func (s *plainSink) batch(b *stream.Batch) error {
	if m := b.Missed; m != nil {
		e := gapEntry(m.Reason, m.Count)
		e.Cursor, e.Timestamp = m.To.String(), m.Until
		if err := s.gap(e, shapeMissed(m, &telemetry.LogFilter{})); err != nil {
			return err
		}
	}
	for i := range b.Records {
		r := &b.Records[i]
		var err error
		if r.Gap == nil {
			err = s.send(r.JSON)
		} else {
			e := gapEntry(r.Gap.Reason, r.Gap.Count)
			e.Agent, e.Session, e.Sandbox, e.Node = r.Gap.Agent, r.Gap.Session, r.Gap.Sandbox, r.Gap.Node
			e.Cursor, e.Timestamp, e.ObservedAt = r.Gap.Cursor, r.Gap.Until, r.Gap.ObservedAt
			err = s.gap(e, shapeGap(r.Gap))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// gapEntry is the line that stands for missing ones.
func gapEntry(reason telemetry.GapReason, count int64) *telemetry.LogEntry {
	e := &telemetry.LogEntry{Level: telemetry.Warn, Origin: telemetry.Origin{Source: telemetry.SourceSystem}}
	e.Message = fmt.Sprintf("%d lines are missing here: %s", count, reason)
	if count == telemetry.GapUnknownCount {
		e.Message = fmt.Sprintf("an unknown number of lines is missing here: %s", reason)
	}
	return e
}

// gap writes an entry with the gap beside its fields.
func (s *plainSink) gap(e *telemetry.LogEntry, shape any) error {
	if e.Timestamp.IsZero() {
		e.Timestamp = time.Now()
	}
	data, err := json.Marshal(shape)
	if err != nil {
		return fmt.Errorf("api: encode a gap: %w", err)
	}
	message := e.AppendJSON(nil)
	message = append(message[:len(message)-1], `,"gap":`...)
	return s.send(append(append(message, data...), '}'))
}
