package sandbox

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/theazo/observability/agentd/source"
	"github.com/theazo/observability/shared/retry"
	"github.com/theazo/observability/shared/telemetry"
)

// A container may speak before the engine has told of it: its first request
// waits that long. Only so many wait at a time, and who was unknown after that
// is refused at once for a while.
const (
	resolveFor   = 2 * time.Second
	resolveEvery = 50 * time.Millisecond
	maxWaiting   = 64
	unknownFor   = 5 * time.Second
	maxUnknown   = 1024
)

// hidden reports whether the process behind a unix socket's connection, which
// lives, is not to be seen.
func (p *peer) hidden() bool {
	if p.addr.IsValid() || p.pid <= 0 {
		return false
	}
	_, err := os.Stat("/proc/" + strconv.Itoa(p.pid))
	return errors.Is(err, fs.ErrNotExist)
}

// sender is what a request says of who sent it, before that is checked.
type sender struct {
	peer  *peer
	token string
}

type senderKey struct{}

// target says who the sender of a request is. The error is a
// *telemetry.Failure.
func (s *Source) target(r *http.Request) (source.Target, error) {
	from, ok := r.Context().Value(senderKey{}).(sender)
	if !ok {
		return source.Target{}, telemetry.Failf(telemetry.Internal, "The request came by no connection of this endpoint.")
	}
	return s.targetOf(r.Context(), from.peer, from.token)
}

// targetOf says who a peer is: from is the remote address of a connection that
// listen's listeners accepted, token "" or that in the path.
func (s *Source) targetOf(ctx context.Context, from net.Addr, token string) (source.Target, error) {
	p, ok := from.(*peer)
	if !ok {
		return source.Target{}, telemetry.Failf(telemetry.Internal, "The request came by no connection of this endpoint.")
	}
	if token != "" {
		return s.byToken(p, token)
	}
	if t, ok := s.byPeer(ctx, p); ok {
		return t, nil
	}
	s.metrics.refused.WithLabelValues("unbound").Inc()
	if p.hidden() {
		s.hidden.Do(func() {
			s.log.Warn("a sender on the unix socket cannot be told apart: this system hides processes from agentd. Let it see them (systemctl edit agentd: [Service] ProtectProc=default), or give senders addresses or tokens", "pid", p.pid)
		})
		return source.Target{}, telemetry.Failf(telemetry.Forbidden,
			"This node's agentd may not see which container %s is in: let it see processes (ProtectProc=default in its systemd unit), or give the sender a token ('agentd sandbox-token').", p)
	}
	return source.Target{}, telemetry.Failf(telemetry.Forbidden,
		"%s belongs to no container that this node collects from. Give the sender a token: 'agentd sandbox-token' prints its THEAZO_ENDPOINT.", p)
}

func (s *Source) byToken(p *peer, token string) (source.Target, error) {
	t, err := s.cfg.Key.target(token, time.Now())
	if err != nil {
		s.metrics.refused.WithLabelValues("token").Inc()
		return t, &telemetry.Failure{Code: telemetry.Unauthorized, Message: "This token is not one of this node, or is not valid any more.", Cause: err}
	}
	// A stolen token is of no use in another tenant's container.
	if s.cfg.Resolver != nil {
		if c, ok := p.resolve(s.cfg.Resolver); ok && (c.Org != t.Org || c.Env != t.Env) {
			s.metrics.refused.WithLabelValues("token").Inc()
			return t, telemetry.Failf(telemetry.Forbidden, "This token belongs to a sandbox of another organisation or environment.")
		}
	}
	return t, nil
}

func (s *Source) byPeer(ctx context.Context, p *peer) (source.Target, bool) {
	if s.cfg.Resolver != nil {
		if t, ok := p.resolve(s.cfg.Resolver); ok {
			return collected(t), true
		}
	}
	host := !p.addr.IsValid() && (p.uid == os.Getuid() || p.uid == 0)
	if s.cfg.Host != nil && host {
		return *s.cfg.Host, true
	}
	if s.cfg.Resolver == nil || p.addr.IsLoopback() || !s.unknown.wait(p.key()) {
		return source.Target{}, false
	}
	ctx, cancel := context.WithTimeout(ctx, resolveFor)
	defer cancel()
	for {
		if retry.Sleep(ctx, resolveEvery) != nil {
			s.unknown.remember(p.key())
			return source.Target{}, false
		}
		if t, ok := p.resolve(s.cfg.Resolver); ok {
			s.unknown.done()
			return collected(t), true
		}
	}
}

// collected is a container's target as records of this source have it.
func collected(t source.Target) source.Target {
	t.Origin.Stream = telemetry.NoStream
	t.Origin.Source = telemetry.SourceAgent
	return t
}

// unknown keeps who is waiting to be known, and who turned out not to be.
type unknown struct {
	mu      sync.Mutex
	waiting int
	until   map[string]time.Time
}

// wait reports whether a sender may wait to be known.
func (u *unknown) wait(key string) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.waiting >= maxWaiting || time.Now().Before(u.until[key]) {
		return false
	}
	u.waiting++
	return true
}

func (u *unknown) done() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.waiting--
}

func (u *unknown) remember(key string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.waiting--
	if u.until == nil || len(u.until) >= maxUnknown {
		u.until = map[string]time.Time{}
	}
	u.until[key] = time.Now().Add(unknownFor)
}

// claim checks what a body says of who sent it: nothing, or the truth.
func (s *Source) claim(t *source.Target, agent, session string) error {
	name, said, is := "agentId", agent, string(t.Origin.Agent)
	if agent == "" || agent == is {
		name, said, is = "sessionId", session, string(t.Origin.Session)
	}
	if said == "" || said == is {
		return nil
	}
	s.metrics.refused.WithLabelValues("claim").Inc()
	f := telemetry.Failf(telemetry.Forbidden, "The body names another %s than its sender has. Labels of the container (theazo.agent_id, theazo.session_id) say who it is; leave the field out or correct it.",
		strings.TrimSuffix(name, "Id"))
	f.Fields = []telemetry.FieldError{{Field: name, Detail: "is not the sender's"}}
	s.warnOnce("claim "+string(t.Origin.Sandbox)+string(t.Origin.Agent), "a sandbox says it is another agent or session than its labels or token say; what it sends is refused",
		"agent", string(t.Origin.Agent), "sandbox", string(t.Origin.Sandbox), "field", name)
	return f
}
