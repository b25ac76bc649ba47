package agentd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
	"unicode/utf8"

	"github.com/hashicorp/go-hclog"

	"github.com/theazo/observability/agentd/source"
	"github.com/theazo/observability/shared/ids"
	"github.com/theazo/observability/shared/telemetry"
)

// Command is a child that agentd is the parent of: the one process of a
// single-container machine. Its output is passed on and collected.
type Command struct {
	Args           []string
	Stdout, Stderr io.Writer // where its output is passed on to
	// Environ names the agent: THEAZO_AGENT_ID, _SESSION_ID, _USER_ID,
	// _ORG_ID and _ENVIRONMENT, as the sandbox client knows them.
	Environ func(string) string
	// Endpoint is the THEAZO_ENDPOINT that the child is given; empty: none.
	Endpoint string
	// Reap waits for processes that lost their parents and became ours, as the
	// first process of a container has to: it makes this process their reaper.
	Reap bool
	Log  hclog.Logger

	whose    *source.Target
	patience time.Duration // see endedPatience
	stall    time.Duration // see longestStall
	exitCode int
	started  bool // the child ran, or it was tried
	ended    bool // the child ran, and how it ended was seen
	done     chan struct{}
}

// endedPatience is how long the rest of a child's output may wait for room when
// the child has ended: longer than a full buffer waits before it gives
// something up (buffer.evict_after), but not for a disk that stays full.
const endedPatience = 90 * time.Second

// longestStall is how long a child waits at most because the buffer takes no
// lines: after that its output is only passed on, and what is not kept of it is
// told as a gap.
const longestStall = 5 * time.Second

// NewCommand prepares a child; it starts when the agent runs it as a source.
func NewCommand(args []string, log hclog.Logger) *Command {
	return &Command{Args: args, Stdout: os.Stdout, Stderr: os.Stderr, Environ: os.Getenv, Log: log, patience: endedPatience, stall: longestStall, done: make(chan struct{})}
}

// Name of the source.
func (c *Command) Name() string { return "exec" }

// Done is closed when the child has ended and all it wrote has been handed on.
func (c *Command) Done() <-chan struct{} { return c.done }

// ExitCode is the child's exit code, or 128 and its signal, as a shell gives
// it. Only after Done.
func (c *Command) ExitCode() int { return c.exitCode }

// Started reports whether the child ran or was tried to. Only when nobody runs
// it any more.
func (c *Command) Started() bool { return c.started }

// Ended reports whether the child ran and has ended: ExitCode is then what it
// said, whatever became of its output. Only after Done.
func (c *Command) Ended() bool { return c.ended }

// Run starts the child, forwards our signals to it and collects until it has
// ended. A child's output cannot be read again, so ctx does not cut it short:
// when ctx ends the child is asked to end (SIGTERM) and is still read out. What
// the sink does not take within endedPatience of the child's end is given up.
func (c *Command) Run(ctx context.Context, resume source.Positions, to source.Sink) error {
	defer close(c.done)
	target, err := c.Target()
	if err != nil {
		return err
	}
	if err := c.uncleanStop(ctx, resume, to); err != nil {
		return err
	}
	cmd := exec.Command(c.Args[0], c.Args[1:]...) //nolint:gosec,noctx // the operator's own command; it outlives ctx by design
	cmd.Stdin, cmd.Env = os.Stdin, c.childEnvironment(os.Environ(), &target)
	cmd.SysProcAttr = ownGroup()
	outputs, err := c.outputs(cmd)
	if err != nil {
		return fmt.Errorf("pipe for %s: %w", c.Args[0], err)
	}
	if c.Reap {
		c.adoptOrphans()
	}
	c.started = true
	err = cmd.Start()
	for _, o := range outputs {
		_ = o.to.Close() // the child has its own
		defer func() { _ = o.from.Close() }()
	}
	if err != nil {
		c.exitCode = startFailure(err)
		return fmt.Errorf("start %s: %w", c.Args[0], err)
	}
	target.Origin.Sandbox = telemetry.SandboxID(fmt.Sprintf("pid-%d", cmd.Process.Pid))
	keep, giveUp := context.WithCancel(context.WithoutCancel(ctx))
	defer giveUp()
	c.event(keep, to, target, telemetry.Event{Type: telemetry.SandboxStarted})
	stopForwarding := c.forwardSignals(ctx, cmd.Process)
	stopReaping := func() {}
	if c.Reap {
		stopReaping = c.reap(cmd.Process.Pid)
	}

	var wg sync.WaitGroup
	for _, o := range outputs {
		wg.Go(func() { c.collect(keep, o, target, to) })
	}
	err = cmd.Wait()
	waited := time.AfterFunc(c.patience, giveUp) // the next start tells what is missing then
	defer waited.Stop()
	stopForwarding()
	takeTerminal()
	for _, o := range outputs {
		_ = o.from.SetReadDeadline(time.Now().Add(heldOutput)) // collect drains what is there by then
	}
	wg.Wait()
	stopReaping()
	c.tellEnd(keep, to, target, cmd.ProcessState, err)
	return nil
}

// runKey is the position that is there while a child runs: what a child wrote
// cannot be read again.
const runKey = "run"

// running is its value: whose the child's output is, and when the newest of it
// was taken.
type running struct {
	Target source.Target `json:"target"`
	At     time.Time     `json:"at"`
}

// emit hands a batch on with the note that the child runs.
func (c *Command) emit(ctx context.Context, to source.Sink, b *source.Batch) error {
	b.Once = true
	if b.Positions == nil {
		note, err := json.Marshal(running{b.Target, time.Now().UTC()})
		if err != nil {
			return fmt.Errorf("exec: %w", err)
		}
		b.Positions = source.Positions{runKey: note}
	}
	return to.Emit(ctx, b)
}

// uncleanStop tells that an earlier process was killed while its child ran.
func (c *Command) uncleanStop(ctx context.Context, resume source.Positions, to source.Sink) error {
	var was running
	note, ok := resume[runKey]
	if !ok {
		return nil
	}
	if err := json.Unmarshal(note, &was); err != nil {
		c.Log.Warn("what an earlier run left cannot be read", "error", err)
	}
	b := &source.Batch{Target: was.Target, Positions: source.Positions{runKey: json.RawMessage("null")}}
	b.Gaps = []telemetry.Gap{{
		Reason: telemetry.GapUncleanStop, Count: telemetry.GapUnknownCount, Since: was.At, Until: time.Now().UTC(),
		Agent: was.Target.Origin.Agent, Session: was.Target.Origin.Session, Sandbox: was.Target.Origin.Sandbox,
		Detail: "agentd exec was killed while its command ran; what the command wrote last may be missing, and how it ended is not known.",
	}}
	return to.Emit(ctx, b)
}

// joinTokenVariable is where a join token is that came by the environment
// (package config).
const joinTokenVariable = "AGENTD_AGGREGATOR_JOIN_TOKEN"

// childEnvironment says to the child who it is and where it reports. It leaves
// out the join token: with it, whatever the child runs could enrol nodes of its
// own for as long as the token lasts.
func (c *Command) childEnvironment(ours []string, t *source.Target) []string {
	set := map[string]string{"THEAZO_AGENT_ID": string(t.Origin.Agent)}
	if t.Origin.Session != "" {
		set["THEAZO_SESSION_ID"] = string(t.Origin.Session)
	}
	if c.Endpoint != "" {
		set["THEAZO_ENDPOINT"] = c.Endpoint
	}
	env := slices.DeleteFunc(withoutSecrets(ours), func(variable string) bool {
		name, _, _ := strings.Cut(variable, "=")
		_, replaced := set[name]
		return replaced
	})
	for _, name := range slices.Sorted(maps.Keys(set)) {
		env = append(env, name+"="+set[name])
	}
	return env
}

// Unobserved turns this process into the command: where agentd itself cannot
// work, the command shall. Only before Run has tried to start it; it returns
// where there is no such command.
func (c *Command) Unobserved() error {
	path, err := exec.LookPath(c.Args[0])
	if err == nil {
		err = syscall.Exec(path, c.Args, withoutSecrets(os.Environ())) //nolint:gosec // the operator's own command
	}
	c.exitCode = startFailure(err)
	return fmt.Errorf("start %s: %w", c.Args[0], err)
}

func withoutSecrets(env []string) []string {
	return slices.DeleteFunc(env, func(variable string) bool {
		name, _, _ := strings.Cut(variable, "=")
		return name == joinTokenVariable
	})
}

// startFailure is the code that shells use where a command cannot start.
func startFailure(err error) int {
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, os.ErrNotExist) {
		return 127
	}
	return 126
}

// Target says whom the child's output is for and about.
func (c *Command) Target() (source.Target, error) {
	if c.whose != nil {
		return *c.whose, nil
	}
	t := source.Target{Org: telemetry.OrgID(c.Environ("THEAZO_ORG_ID")), Origin: telemetry.Origin{
		Agent: telemetry.AgentID(c.Environ("THEAZO_AGENT_ID")), Session: telemetry.SessionID(c.Environ("THEAZO_SESSION_ID")),
		User: telemetry.UserID(c.Environ("THEAZO_USER_ID")),
	}}
	if t.Origin.Agent == "" {
		t.Origin.Agent = telemetry.AgentID(ids.New("agt"))
	}
	for name, id := range map[string]string{"THEAZO_ORG_ID": string(t.Org), "THEAZO_AGENT_ID": string(t.Origin.Agent), "THEAZO_SESSION_ID": string(t.Origin.Session)} {
		if id == "" {
			continue
		}
		if err := telemetry.CheckID(id); err != nil {
			return t, fmt.Errorf("%s %q %w", name, id, err)
		}
	}
	if t.Origin.User != "" {
		if err := telemetry.CheckUser(string(t.Origin.User)); err != nil {
			return t, fmt.Errorf("THEAZO_USER_ID %w", err)
		}
	}
	if env := c.Environ("THEAZO_ENVIRONMENT"); env != "" {
		var err error
		if t.Env, err = telemetry.ParseEnvironment(env); err != nil {
			return t, fmt.Errorf("THEAZO_ENVIRONMENT: %w", err)
		}
	}
	c.whose = &t
	return t, nil
}

// signalFollows is how long after ctx the signal that ended it may come.
const signalFollows = 50 * time.Millisecond

// forwardSignals passes on what is meant for the child to its whole process
// group, as a terminal would, until the returned function is called: a shell
// that is the child keeps signals from what it runs. We are asked to end by ctx
// or a signal: the child gets that signal, or SIGTERM; when we are asked again
// it is killed, or it would outlive us.
// timeout(1) sends its signal twice in a row, so a second counts as one only
// after a moment.
func (c *Command) forwardSignals(ctx context.Context, p *os.Process) (stop func()) {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGQUIT, syscall.SIGWINCH, syscall.SIGINT, syscall.SIGTERM)
	end := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		asked := ctx.Done()
		var first time.Time
		var byContext <-chan time.Time
		for {
			select {
			case s := <-signals:
				switch {
				case s != syscall.SIGINT && s != syscall.SIGTERM:
					signalGroup(p, s)
				case first.IsZero():
					first, asked = time.Now(), nil
					signalGroup(p, s)
				case time.Since(first) > time.Second:
					c.Log.Warn("asked to end a second time: killing the child", "pid", p.Pid)
					signalGroup(p, syscall.SIGKILL)
				}
			case <-asked:
				// Where a signal has ended ctx, it is here too, or soon: it says which.
				asked, byContext = nil, time.After(signalFollows)
			case <-byContext:
				if first.IsZero() {
					signalGroup(p, syscall.SIGTERM)
				}
			case <-end:
				return
			}
		}
	})
	return func() {
		signal.Stop(signals)
		close(end)
		wg.Wait()
	}
}

func (c *Command) tellEnd(ctx context.Context, to source.Sink, t source.Target, state *os.ProcessState, err error) {
	if state == nil {
		c.Log.Error("the child's end could not be seen", "error", err)
		c.exitCode = 1
		return
	}
	c.exitCode, c.ended = state.ExitCode(), true
	reason := ""
	if s, ok := state.Sys().(syscall.WaitStatus); ok && s.Signaled() {
		c.exitCode = 128 + int(s.Signal())
		reason = "killed"
	} else if c.exitCode != 0 {
		reason = "error"
	}
	code := c.exitCode
	c.event(ctx, to, t, telemetry.Event{Type: telemetry.SandboxExited, ExitCode: &code, Reason: reason})
}

func (c *Command) event(ctx context.Context, to source.Sink, t source.Target, e telemetry.Event) {
	b := &source.Batch{}
	if e.Type == telemetry.SandboxExited {
		b.Positions = source.Positions{runKey: json.RawMessage("null")}
	}
	e.Timestamp = time.Now().UTC()
	e.Attributes = map[string]string{"command": cut(c.Args[0], 256)}
	t.Origin.Source = telemetry.SourceProvider
	b.Target, b.Events = t, []telemetry.Event{e}
	if err := c.emit(ctx, to, b); err != nil {
		c.Log.Error("lifecycle event was not taken", "type", string(e.Type), "error", err)
	}
}

func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
