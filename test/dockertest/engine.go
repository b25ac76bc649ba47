package dockertest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/moby/moby/client"
)

// Patience is how long anything may take on a loaded machine.
const Patience = 2 * time.Minute

// Engine is a Docker engine that runs.
type Engine struct {
	host  string
	root  string         // DockerRootDir
	state string         // of a private engine; empty: the machine's own
	c     *client.Client // for containers and images
}

// shared is the engine of this test binary.
var shared struct {
	once   sync.Once
	engine *Engine
	err    error
}

// Main runs the tests and stops the private engine, if one was started. It
// returns the code to exit with.
func Main(_ *testing.M, run func() int) int {
	defer func() {
		if shared.engine != nil {
			shared.engine.shutdown()
		}
	}()
	return run()
}

// NewEngine returns the engine of this test binary, and starts it the first
// time. The test is skipped, with the reason, where none can run.
func NewEngine(t testing.TB) *Engine {
	t.Helper()
	shared.once.Do(func() { shared.engine, shared.err = open(context.WithoutCancel(t.Context()), false) })
	return usable(t, shared.engine, shared.err)
}

// NewPrivate starts an engine of the test's own, which it may stop and kill.
func NewPrivate(t testing.TB) *Engine {
	t.Helper()
	e, err := open(context.WithoutCancel(t.Context()), true)
	if e != nil {
		t.Cleanup(e.shutdown)
	}
	return usable(t, e, err)
}

func usable(t testing.TB, e *Engine, err error) *Engine {
	t.Helper()
	if none, ok := errors.AsType[*noEngineError](err); ok {
		t.Skipf("SKIPPED, no Docker engine can run here: %v", none)
	}
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// noEngineError says that an engine cannot run on this machine.
type noEngineError struct{ reason string }

func (e *noEngineError) Error() string { return e.reason }

func open(ctx context.Context, private bool) (*Engine, error) {
	if !private {
		for _, host := range []string{os.Getenv("DOCKER_HOST"), "unix:///var/run/docker.sock"} {
			e := &Engine{host: host}
			if host != "" && e.connect(ctx) == nil && readable(e.root) {
				return e, nil
			}
		}
	}
	settleOrphans()
	// Not in /tmp, which may be memory, and by a short name: it holds sockets.
	state, err := os.MkdirTemp(states, statePrefix)
	if err != nil {
		return nil, err
	}
	e := &Engine{state: state}
	if err := os.WriteFile(filepath.Join(state, ownerFile), []byte(strconv.Itoa(os.Getpid())), 0o600); err != nil {
		return nil, errors.Join(err, os.RemoveAll(state))
	}
	if err := e.start(ctx); err != nil {
		return nil, errors.Join(err, os.RemoveAll(state))
	}
	return e, nil
}

// Where private engines keep their state, and whose they are.
const (
	states      = "/var/tmp"
	statePrefix = "theazo-docker-"
	ownerFile   = "owner"
)

// settleOrphans ends the engines of test binaries that died before they could.
func settleOrphans() {
	owners, err := filepath.Glob(filepath.Join(states, statePrefix+"*", ownerFile))
	if err != nil {
		return
	}
	for _, file := range owners {
		text, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
		if err != nil || !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
			continue
		}
		orphan := &Engine{state: filepath.Dir(file)}
		orphan.shutdown()
	}
}

func readable(root string) bool {
	_, err := os.ReadDir(filepath.Join(root, "containers"))
	return err == nil
}

// connect makes the client and asks for the engine's directory.
func (e *Engine) connect(ctx context.Context) error {
	c, err := client.New(client.WithHost(e.host))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, Patience)
	defer cancel()
	info, err := c.Info(ctx, client.InfoOptions{})
	if err != nil {
		return errors.Join(err, c.Close())
	}
	if e.c != nil {
		e.c.Close()
	}
	e.c, e.root = c, info.Info.DockerRootDir
	return nil
}

// script returns a script of the repository's tools.
func script(name string) string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "..", "..", "tools", name)
}

// start brings the private engine up.
func (e *Engine) start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, Patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, script("docker-up"), "--private", e.state)
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 4 {
		return &noEngineError{reason: strings.TrimSpace(said.String())}
	}
	if err != nil {
		return fmt.Errorf("docker-up: %w: %s", err, said.String())
	}
	e.host = strings.TrimPrefix(strings.TrimSpace(string(out)), "DOCKER_HOST=")
	return e.connect(ctx)
}

func (e *Engine) down(ctx context.Context) error {
	if out, err := exec.CommandContext(ctx, script("docker-down"), e.state).CombinedOutput(); err != nil {
		return fmt.Errorf("docker-down: %w: %s", err, out)
	}
	return nil
}

// shutdown ends the private engine and removes all that it had.
func (e *Engine) shutdown() {
	if e.c != nil {
		e.c.Close()
	}
	if e.state == "" {
		return
	}
	err := e.down(context.Background())
	if err == nil {
		err = os.RemoveAll(e.state)
	}
	if err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "dockertest:", err)
	}
}

// Host is the engine's address, fit for DOCKER_HOST.
func (e *Engine) Host() string { return e.host }

// Root is the engine's directory (DockerRootDir).
func (e *Engine) Root() string { return e.root }

// Client is a client of the engine.
func (e *Engine) Client() *client.Client { return e.c }

// Restart stops the engine, with its containers, and starts it again.
func (e *Engine) Restart(t testing.TB) {
	t.Helper()
	e.Stop(t)
	e.Start(t)
}

// Stop stops a private engine, with its containers.
func (e *Engine) Stop(t testing.TB) {
	t.Helper()
	e.mustBePrivate(t)
	if err := e.down(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// Start starts a private engine that was stopped or killed.
func (e *Engine) Start(t testing.TB) {
	t.Helper()
	e.mustBePrivate(t)
	if err := e.start(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// Kill ends a private engine with SIGKILL. Its containers go on writing into
// pipes that nobody reads, until Start removes them.
func (e *Engine) Kill(t testing.TB) {
	t.Helper()
	e.mustBePrivate(t)
	file := filepath.Join(filepath.Dir(strings.TrimPrefix(e.host, "unix://")), "docker.pid")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatalf("kill the engine: %v", err)
	}
}

func (e *Engine) mustBePrivate(t testing.TB) {
	t.Helper()
	if e.state == "" {
		t.Skipf("SKIPPED, the engine at %s is not ours to stop; unset DOCKER_HOST to have a private one", e.host)
	}
}
