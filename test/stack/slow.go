package stack

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Relay passes TCP connections on to a unix socket, each chunk of bytes as late
// as it is told, either way: a database that is far away or busy.
type Relay struct {
	Delay    atomic.Int64 // nanoseconds
	listener net.Listener
	socket   string
	group    sync.WaitGroup
	mu       sync.Mutex
	closed   bool
	open     map[net.Conn]bool
}

// NewRelay starts a relay on a port of its own.
func NewRelay(ctx context.Context, socket string) (*Relay, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &Relay{listener: l, socket: socket, open: map[net.Conn]bool{}}
	r.group.Go(r.accept)
	return r, nil
}

// Addr is where it listens.
func (r *Relay) Addr() *net.TCPAddr {
	a, _ := r.listener.Addr().(*net.TCPAddr) // it was asked for tcp
	return a
}

// Close breaks every connection and ends the relay.
func (r *Relay) Close() {
	_ = r.listener.Close()
	r.mu.Lock()
	r.closed = true
	for c := range r.open {
		_ = c.Close()
	}
	r.mu.Unlock()
	r.group.Wait()
}

func (r *Relay) accept() {
	for {
		in, err := r.listener.Accept()
		if err != nil {
			return
		}
		var d net.Dialer
		out, err := d.DialContext(context.Background(), "unix", r.socket)
		if err != nil {
			_ = in.Close()
			continue
		}
		if !r.keep(in, out) {
			return
		}
		r.group.Go(func() { r.pass(in, out) })
		r.group.Go(func() { r.pass(out, in) })
	}
}

func (r *Relay) keep(conns ...net.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range conns {
		r.open[c] = true
		if r.closed {
			_ = c.Close()
		}
	}
	return !r.closed
}

// chunk is bytes and when they may go on.
type chunk struct {
	bytes []byte
	due   time.Time
}

// pass reads as fast as it comes and writes each chunk when it is due: it
// delays, and does not narrow.
func (r *Relay) pass(to, from net.Conn) {
	chunks := make(chan chunk, 1024)
	r.group.Go(func() {
		defer close(chunks)
		for {
			buf := make([]byte, 64<<10)
			n, err := from.Read(buf)
			if n > 0 {
				chunks <- chunk{buf[:n], time.Now().Add(time.Duration(r.Delay.Load()))}
			}
			if err != nil {
				return
			}
		}
	})
	var err error
	for c := range chunks {
		if err != nil {
			continue // the reader ends when its connection does
		}
		if wait := time.Until(c.due); wait > 0 {
			<-time.After(wait)
		}
		if _, err = to.Write(c.bytes); err != nil {
			_ = from.Close()
		}
	}
	_ = to.Close()
	_ = from.Close()
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.open, to)
	delete(r.open, from)
}
