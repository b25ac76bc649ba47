package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/theazo/observability/agentd/source"
)

// Most connections, in all and of one sender: an address, a container that came
// by the unix socket, or a user of the host.
const (
	maxConnections = 2048
	maxOfSender    = 128
)

// peer is the other end of a connection: its address, or its process.
type peer struct {
	addr     netip.Addr // invalid: it came by the unix socket
	pid, uid int
	text     string
	// container is that of pid, once it is known.
	container atomic.Pointer[source.Target]
}

// Network and String make a peer the net.Addr that its connection gives out.
func (p *peer) Network() string {
	if p.addr.IsValid() {
		return "tcp"
	}
	return "unix"
}

func (p *peer) String() string { return p.text }

// key is what connections are counted by.
func (p *peer) key() string {
	if p.addr.IsValid() {
		return p.addr.String()
	}
	if t := p.container.Load(); t != nil {
		return "sandbox " + string(t.Origin.Sandbox)
	}
	return "uid " + strconv.Itoa(p.uid)
}

// resolve finds the peer's container. Addresses are looked up each time,
// because they change hands; a process stays where it is.
func (p *peer) resolve(r Resolver) (source.Target, bool) {
	if p.addr.IsValid() {
		return r.ByAddress(p.addr)
	}
	if t := p.container.Load(); t != nil {
		return *t, true
	}
	if p.pid <= 0 {
		return source.Target{}, false
	}
	t, ok := r.ByPID(p.pid)
	if ok {
		p.container.Store(&t)
	}
	return t, ok
}

func peerOf(c net.Conn) (*peer, error) {
	switch c := c.(type) {
	case *net.TCPConn:
		a, err := netip.ParseAddrPort(c.RemoteAddr().String())
		if err != nil {
			return nil, fmt.Errorf("address of a sender: %w", err)
		}
		return &peer{addr: a.Addr().Unmap().WithZone(""), text: a.String()}, nil
	case *net.UnixConn:
		raw, err := c.SyscallConn()
		if err != nil {
			return nil, err
		}
		var cred *unix.Ucred
		var credErr error
		if err := raw.Control(func(fd uintptr) {
			cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
		}); err != nil || credErr != nil {
			return nil, errors.Join(err, credErr)
		}
		return &peer{pid: int(cred.Pid), uid: int(cred.Uid), text: fmt.Sprintf("pid:%d", cred.Pid)}, nil
	}
	return nil, fmt.Errorf("a connection of type %T", c)
}

// limits counts connections over all listeners.
type limits struct {
	metrics *metrics

	mu  sync.Mutex
	all int
	of  map[string]int
}

func (l *limits) enter(key string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.all >= maxConnections || l.of[key] >= maxOfSender {
		return false
	}
	l.all++
	l.of[key]++
	l.metrics.connections.Set(float64(l.all))
	return true
}

func (l *limits) leave(key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all--
	if l.of[key]--; l.of[key] == 0 {
		delete(l.of, key)
	}
	l.metrics.connections.Set(float64(l.all))
}

// listener gives out connections that know their peer, within the limits.
type listener struct {
	net.Listener
	limits   *limits
	resolver Resolver // may be nil
}

func (l *listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		p, err := peerOf(c)
		if err != nil { // it has gone
			_ = c.Close()
			continue
		}
		if l.resolver != nil && p.pid > 0 {
			p.resolve(l.resolver) // now: a process that has gone has no container
		}
		key := p.key()
		if !l.limits.enter(key) {
			l.limits.metrics.refused.WithLabelValues("connections").Inc()
			_ = c.Close()
			continue
		}
		return &conn{Conn: c, peer: p, leave: sync.OnceFunc(func() { l.limits.leave(key) })}, nil
	}
}

// conn is a connection whose remote address is its *peer.
type conn struct {
	net.Conn
	peer  *peer
	leave func()
}

func (c *conn) RemoteAddr() net.Addr { return c.peer }

func (c *conn) Close() error {
	c.leave()
	return c.Conn.Close()
}

// listen opens one entry of Config.Listen.
func (s *Source) listen(ctx context.Context, entry string) ([]net.Listener, error) {
	if strings.HasPrefix(entry, "/") {
		l, err := listenUnix(ctx, entry)
		if err != nil {
			return nil, err
		}
		return []net.Listener{&listener{l, s.limits, s.cfg.Resolver}}, nil
	}
	addresses, err := addressesOf(entry)
	if err != nil {
		return nil, err
	}
	var lc net.ListenConfig
	var list []net.Listener
	for _, a := range addresses {
		l, err := lc.Listen(ctx, "tcp", a)
		if err != nil {
			for _, l := range list {
				_ = l.Close()
			}
			return nil, fmt.Errorf("listen: %w", err)
		}
		list = append(list, &listener{l, s.limits, s.cfg.Resolver})
	}
	return list, nil
}

// errNoInterface says that an interface may still come: a bridge is there once
// its engine runs.
var errNoInterface = errors.New("no such network interface")

// addressesOf returns the addresses behind ADDRESS:PORT or INTERFACE:PORT.
func addressesOf(entry string) ([]string, error) {
	host, port, err := net.SplitHostPort(entry)
	if err != nil {
		return nil, err
	}
	if _, err := netip.ParseAddr(host); err == nil || host == "localhost" {
		return []string{entry}, nil
	}
	i, err := net.InterfaceByName(host)
	if err != nil {
		return nil, fmt.Errorf("%w: %s", errNoInterface, host)
	}
	addresses, err := i.Addrs()
	if err != nil {
		return nil, fmt.Errorf("addresses of interface %s: %w", host, err)
	}
	var list []string
	for _, a := range addresses {
		if n, ok := a.(*net.IPNet); ok && !n.IP.IsLinkLocalUnicast() {
			list = append(list, net.JoinHostPort(n.IP.String(), port))
		}
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("interface %s has no address", host)
	}
	return list, nil
}

// listenUnix makes the socket. Whoever can enter its directory may connect:
// who they are is asked of each.
func listenUnix(ctx context.Context, path string) (net.Listener, error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // containers of any user mount it
		return nil, fmt.Errorf("directory of the socket: %w", err)
	}
	// What is there is an earlier agentd's: the state directory's lock is ours.
	if info, err := os.Lstat(path); err == nil && info.Mode()&fs.ModeSocket != 0 {
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("socket: %w", err)
		}
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	if err := errors.Join(os.Chmod(dir, 0o755), os.Chmod(path, 0o666)); err != nil { //nolint:gosec // see above
		return nil, errors.Join(fmt.Errorf("socket: %w", err), l.Close())
	}
	return l, nil
}
