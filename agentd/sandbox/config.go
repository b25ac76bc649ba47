package sandbox

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/theazo/observability/agentd/source"
)

// Resolver knows which container a sender is.
type Resolver interface {
	// ByAddress returns the container that has this address.
	ByAddress(addr netip.Addr) (source.Target, bool)
	// ByPID returns the container that the process is in.
	ByPID(pid int) (source.Target, bool)
}

// Config of the endpoint.
type Config struct {
	// Listen holds where to listen: ADDRESS:PORT, INTERFACE:PORT (each address
	// of the interface, once it is there), or the absolute path of a unix
	// socket, whose directory is made. What cannot be listened on is tried again
	// while the rest serves.
	Listen []string
	// Resolver may be nil: then only tokens bind.
	Resolver Resolver
	// Key signs and checks tokens; the zero key takes none.
	Key Key
	// Host is who processes of the host itself are that come by the unix socket
	// and run as our own user or root. nil: nobody.
	Host *source.Target
	// Durable returns the durable position of a key of this source, or nil. It
	// is what exec sessions are acknowledged by. nil: by the sink's taking them.
	Durable func(key string) []byte
	Quota   Quota
	OTLP    OTLP
}

// Quota bounds one sandbox. Zero values stand for the defaults.
type Quota struct {
	Records float64 // a second; 1,000
	Bytes   float64 // a second, as sent; 1 MiB
}

// Bursts, as seconds of a quota.
const burstSeconds = 10

func (q Quota) withDefaults() Quota {
	if q.Records <= 0 {
		q.Records = 1000
	}
	if q.Bytes <= 0 {
		q.Bytes = 1 << 20
	}
	return q
}

// SocketPath is where the unix socket is by default. Containers mount its
// directory, so that they find a new socket after a restart of agentd.
func SocketPath(stateDir string) string { return filepath.Join(stateDir, "sandbox", "agentd.sock") }

// Validate returns an error that names every bad setting.
func (c *Config) Validate() error {
	var errs []error
	for _, l := range c.Listen {
		if err := checkListen(l); err != nil {
			errs = append(errs, fmt.Errorf("listen: %q %w", l, err))
		}
	}
	return errors.Join(errs...)
}

func checkListen(l string) error {
	if strings.HasPrefix(l, "/") {
		if filepath.Clean(l) != l {
			return errors.New("is not a clean path")
		}
		return nil
	}
	host, port, err := net.SplitHostPort(l)
	if err != nil || host == "" {
		return errors.New("is neither ADDRESS:PORT, INTERFACE:PORT nor the absolute path of a socket")
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return errors.New("has no port number")
	}
	return nil
}
