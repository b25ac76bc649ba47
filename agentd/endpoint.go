package agentd

import (
	"context"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/theazo/observability/agentd/sandbox"
	"github.com/theazo/observability/agentd/source"
)

// endpoint is the configured local endpoint, or nil where it is switched off.
func (c *Config) endpoint(durable func() map[string][]byte, resolver sandbox.Resolver, log hclog.Logger, reg prometheus.Registerer) (*sandbox.Source, error) {
	if !c.Sandbox.Enabled {
		return nil, nil //nolint:nilnil // none is asked for
	}
	key, err := sandbox.LoadKey(c.StateDir)
	if err != nil {
		return nil, err
	}
	cfg := c.sandboxConfig()
	cfg.Resolver, cfg.Key, cfg.Durable = resolver, key, durableOf("sandbox/", durable)
	return sandbox.New(cfg, log.Named("sandbox"), reg)
}

// sandboxConfig is what the settings below sandbox say.
func (c *Config) sandboxConfig() sandbox.Config {
	return sandbox.Config{
		Listen: append(slices.Clone(c.Sandbox.Listen), sandbox.SocketPath(c.StateDir)),
		Quota:  sandbox.Quota{Records: float64(c.Sandbox.Records), Bytes: float64(c.Sandbox.Bytes)},
		OTLP:   sandbox.OTLP{Content: c.Sandbox.Content, ContentNames: c.Sandbox.Names},
	}
}

// durableAgain is how old an answer of durableOf may be: a host of thousands of
// containers has as many positions, and they come as a copy.
const durableAgain = 20 * time.Millisecond

// durableOf looks up one durable position of a source.
func durableOf(prefix string, all func() map[string][]byte) func(key string) []byte {
	var mu sync.Mutex
	var positions map[string][]byte
	var read time.Time
	return func(key string) []byte {
		mu.Lock()
		defer mu.Unlock()
		if time.Since(read) > durableAgain {
			positions, read = all(), time.Now()
		}
		return positions[prefix+key]
	}
}

// endpointPatience is how long a command waits for its endpoint: it starts
// without one rather than late.
const endpointPatience = 5 * time.Second

// commandEndpoint runs a local endpoint for a command and what it starts, until
// stop is called. The command's processes are known by a token in the address
// that they are given; others of the same machine and user by the socket.
func (a *agent) commandEndpoint(ctx context.Context) (stop func()) {
	stop = func() {}
	target, err := a.Command.Target()
	if err != nil || !a.Config.Sandbox.Enabled {
		return stop // the command's own run tells of the error
	}
	without := func(err error) func() {
		a.Log.Warn("the command gets no local endpoint: what it would report there is not collected", "error", err)
		return func() {}
	}
	key, err := sandbox.LoadKey(a.Config.StateDir)
	if err != nil {
		return without(err)
	}
	token, err := key.Token(target, time.Time{})
	if err != nil {
		return without(err)
	}
	cfg := a.Config.sandboxConfig()
	cfg.Listen = []string{"127.0.0.1:0", sandbox.SocketPath(a.Config.StateDir)}
	cfg.Host, cfg.Key, cfg.Durable = &target, key, durableOf("sandbox/", a.spool.Positions)
	src, err := sandbox.New(cfg, a.Log.Named("sandbox"), a.registry)
	if err != nil {
		return without(err)
	}
	run, end := context.WithCancel(context.WithoutCancel(ctx))
	var running sync.WaitGroup
	running.Go(func() { a.sources.start(run, src) })
	stop = func() {
		end()
		running.Wait()
	}
	wait, cancel := context.WithTimeout(ctx, endpointPatience)
	defer cancel()
	address, err := src.Address(wait)
	if err != nil {
		stop()
		return without(err)
	}
	a.Command.Endpoint = tokenAddress(address, token)
	return stop
}

func tokenAddress(address, token string) string { return "http://" + address + "/t/" + token }

// SandboxEndpoint makes the THEAZO_ENDPOINT of a sandbox that no container's
// address or labels name: with it, whoever has it speaks for the target, until
// expires (zero: always). The address is that of one of sandbox.listen.
func SandboxEndpoint(stateDir, address string, t source.Target, expires time.Time) (string, error) {
	if _, _, err := net.SplitHostPort(address); err != nil {
		return "", fmt.Errorf("address %q: %w", address, err)
	}
	key, err := sandbox.LoadKey(stateDir)
	if err != nil {
		return "", err
	}
	token, err := key.Token(t, expires)
	if err != nil {
		return "", err
	}
	return tokenAddress(address, token), nil
}
