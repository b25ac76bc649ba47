package agentd

import (
	"bytes"
	"context"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/hashicorp/go-hclog"
	"pgregory.net/rapid"

	"github.com/theazo/observability/agentd/source"
	"github.com/theazo/observability/agentd/source/sourcetest"
	"github.com/theazo/observability/shared/config"
	"github.com/theazo/observability/shared/telemetry"
)

func TestLinesAreTheSameHoweverTheBytesCome(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.SliceOf(rapid.SampledFrom([]byte("ab\n\r\xff"))).Draw(t, "text")
		r := lineReader{stream: telemetry.Stdout}
		for rest := text; len(rest) > 0; {
			n := rapid.IntRange(1, len(rest)).Draw(t, "piece")
			r.write(rest[:n], time.Unix(1, 0))
			rest = rest[n:]
		}
		r.end(time.Unix(2, 0))
		var want []string
		for part := range strings.SplitSeq(string(text), "\n") {
			want = append(want, strings.TrimSuffix(part, "\r"))
		}
		if text := string(text); text == "" || strings.HasSuffix(text, "\n") {
			want = want[:len(want)-1]
		}
		if len(r.lines) != len(want) {
			t.Fatalf("%q: %d lines, want %d", text, len(r.lines), len(want))
		}
		for i, l := range r.lines {
			if string(l.Text) != want[i] {
				t.Fatalf("%q: line %d is %q, want %q", text, i, l.Text, want[i])
			}
		}
	})
}

func TestAnOverlongLineIsCutBetweenRunes(t *testing.T) {
	r := lineReader{}
	r.write([]byte("x"+strings.Repeat("é", telemetry.MaxMessage)+"\nnext\n"), time.Unix(1, 0))
	if len(r.lines) != 2 || !r.lines[0].Truncated || len(r.lines[0].Text) > telemetry.MaxMessage || !utf8.Valid(r.lines[0].Text) {
		t.Fatalf("%d lines, the first of %d bytes, truncated %v", len(r.lines), len(r.lines[0].Text), r.lines[0].Truncated)
	}
	if n := r.lines[0].Original; n != 1+2*telemetry.MaxMessage {
		t.Fatalf("it is said to have had %d bytes", n)
	}
	if string(r.lines[1].Text) != "next" || r.lines[1].Truncated || r.lines[1].Original != 0 {
		t.Fatalf("the next line is %q", r.lines[1].Text)
	}
}

// sinkRecorder keeps what a source emits.
type sinkRecorder struct {
	mu     sync.Mutex
	lines  []string
	events []telemetry.Event
	gaps   []telemetry.Gap
	agent  telemetry.AgentID

	at, while source.Positions // as they are, and as they were before the last change
}

func (s *sinkRecorder) Emit(_ context.Context, b *source.Batch) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.agent = b.Origin.Agent
	for _, l := range b.Lines {
		s.lines = append(s.lines, l.Stream.String()+":"+string(l.Text))
	}
	s.events = append(s.events, b.Events...)
	s.gaps = append(s.gaps, b.Gaps...)
	if s.at != nil {
		s.while = maps.Clone(s.at)
		s.at.Apply(b.Positions)
	}
	return nil
}

func command(env map[string]string, args ...string) (*Command, *bytes.Buffer) {
	c := NewCommand(args, hclog.NewNullLogger())
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &bytes.Buffer{}
	c.Environ = func(name string) string { return env[name] }
	return c, &out
}

// blockedSink takes the start of a child and nothing else, as where the disk is full.
type blockedSink struct{ sinkRecorder }

func (s *blockedSink) Emit(ctx context.Context, b *source.Batch) error {
	if len(b.Events) > 0 && b.Events[0].Type == telemetry.SandboxStarted {
		return s.sinkRecorder.Emit(ctx, b)
	}
	<-ctx.Done()
	return ctx.Err()
}

func TestExecEndsThoughNothingTakesTheOutput(t *testing.T) {
	c, out := command(map[string]string{"THEAZO_AGENT_ID": "agt_1"}, "sh", "-c", "echo one; echo two >&2; exit 3")
	c.patience = 50 * time.Millisecond
	s := blockedSink{sinkRecorder{at: source.Positions{}}}
	if err := c.Run(t.Context(), nil, &s); err != nil {
		t.Fatal(err)
	}
	<-c.Done()
	if c.ExitCode() != 3 || !c.Ended() || out.String() != "one\n" {
		t.Fatalf("exit code %d, output %q", c.ExitCode(), out.String())
	}
	next, _ := command(nil, "true") // the next start
	var told sinkRecorder
	if err := next.Run(t.Context(), s.at, &told); err != nil {
		t.Fatal(err)
	}
	if len(told.gaps) != 1 || told.gaps[0].Reason != telemetry.GapUncleanStop || told.gaps[0].Agent != "agt_1" {
		t.Fatalf("gaps %+v", told.gaps)
	}
}

func TestExecPassesOutputAndExitCodeOn(t *testing.T) {
	c, out := command(map[string]string{"THEAZO_AGENT_ID": "agt_1"}, "sh", "-c", "echo one; printf two; echo oops >&2; exit 7")
	var s sinkRecorder
	if err := c.Run(t.Context(), nil, &s); err != nil {
		t.Fatal(err)
	}
	<-c.Done()
	if c.ExitCode() != 7 || out.String() != "one\ntwo" {
		t.Errorf("exit code %d, output %q", c.ExitCode(), out)
	}
	got := strings.Join(s.lines, " ")
	if !strings.Contains(got, "stdout:one") || !strings.Contains(got, "stdout:two") || !strings.Contains(got, "stderr:oops") || s.agent != "agt_1" {
		t.Errorf("collected %q of %s", got, s.agent)
	}
	if n := len(s.events); n != 2 || s.events[1].Type != telemetry.SandboxExited || *s.events[1].ExitCode != 7 || s.events[1].Reason != "error" {
		t.Errorf("events %+v", s.events)
	}
}

func TestExecKeepsTheJoinTokenFromItsChild(t *testing.T) {
	t.Setenv("AGENTD_AGGREGATOR_JOIN_TOKEN", "thj_secret")
	t.Setenv("KEPT", "kept")
	set := Default()
	if err := config.New("agentd", &set).Load(&set); err != nil || set.Aggregator.JoinToken != "thj_secret" {
		t.Fatalf("the variable is read as %q (%v)", set.Aggregator.JoinToken, err)
	}
	to := &sinkRecorder{}
	c, _ := command(nil, "sh", "-c", "env")
	if err := c.Run(t.Context(), nil, to); err != nil {
		t.Fatal(err)
	}
	if all := strings.Join(to.lines, " "); strings.Contains(all, "thj_secret") || !strings.Contains(all, "KEPT=kept") {
		t.Errorf("the child sees %s", all)
	}
}

func TestExecStopsItsChildWhenAsked(t *testing.T) {
	c, _ := command(nil, "sh", "-c", "trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.05; done")
	ctx, cancel := context.WithCancel(t.Context())
	s := sinkRecorder{}
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx, nil, &s) }()
	for up := false; !up; {
		s.mu.Lock()
		up = len(s.lines) > 0
		s.mu.Unlock()
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if c.ExitCode() != 3 || !slices.Contains(s.lines, "stdout:bye") {
		t.Errorf("exit code %d, lines %q: the last words are missing", c.ExitCode(), s.lines)
	}
}

func TestASignalReachesWhatAShellRuns(t *testing.T) {
	c, _ := command(nil, "sh", "-c", "sh -c 'trap \"echo inner; exit 0\" TERM; echo up; while :; do sleep 0.05; done'; echo outer; exit 4")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	s := sinkRecorder{}
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx, nil, &s) }()
	until(t, func() bool { return s.count() > 0 })
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(s.lines, "stdout:inner") {
		t.Errorf("exit code %d, lines %q", c.ExitCode(), s.lines)
	}
}

func TestTheChildIsToldWhoItIsAndWhereToReport(t *testing.T) {
	t.Setenv("THEAZO_ENDPOINT", "http://elsewhere")
	c, _ := command(map[string]string{"THEAZO_SESSION_ID": "ses_1"}, "env")
	c.Endpoint = "http://127.0.0.1:1/t/token"
	s := sinkRecorder{}
	if err := c.Run(t.Context(), nil, &s); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"THEAZO_ENDPOINT=http://127.0.0.1:1/t/token", "THEAZO_AGENT_ID=" + string(s.agent), "THEAZO_SESSION_ID=ses_1"} {
		if !slices.Contains(s.lines, "stdout:"+want) {
			t.Errorf("%s is missing", want)
		}
	}
	if slices.Contains(s.lines, "stdout:THEAZO_ENDPOINT=http://elsewhere") {
		t.Error("another endpoint is there too")
	}
}

func TestAKilledExecIsToldByTheNextOne(t *testing.T) {
	c, _ := command(map[string]string{"THEAZO_AGENT_ID": "agt_1"}, "echo", "one")
	first := sinkRecorder{at: source.Positions{}}
	if err := c.Run(t.Context(), nil, &first); err != nil {
		t.Fatal(err)
	}
	if len(first.at) != 0 || len(first.while) == 0 {
		t.Fatalf("positions %s, and %s while it ran", first.at, first.while)
	}
	c, _ = command(map[string]string{"THEAZO_AGENT_ID": "agt_2"}, "echo", "two")
	second := sinkRecorder{at: source.Positions{}}
	if err := c.Run(t.Context(), first.while, &second); err != nil {
		t.Fatal(err)
	}
	if len(second.gaps) != 1 || second.gaps[0].Reason != telemetry.GapUncleanStop || second.gaps[0].Agent != "agt_1" || second.gaps[0].Since.IsZero() {
		t.Errorf("gaps %+v", second.gaps)
	}
}

// until polls check until it holds.
func until(t *testing.T, check func() bool) {
	t.Helper()
	deadline := time.After(time.Minute)
	for !check() {
		select {
		case <-deadline:
			t.Fatal("not within a minute")
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func (s *sinkRecorder) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.lines)
}

func TestExecAskedTwiceKillsAChildThatDoesNotListen(t *testing.T) {
	c, _ := command(nil, "sh", "-c", "trap '' TERM; echo up; while :; do sleep 0.05; done")
	ours := make(chan os.Signal, 1)
	signal.Notify(ours, syscall.SIGTERM) // one that comes after Run's end must not end the test
	defer signal.Stop(ours)
	ctx, cancel := context.WithCancel(t.Context())
	s := sinkRecorder{}
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx, nil, &s) }()
	until(t, func() bool { return s.count() > 0 })
	cancel()
	until(t, func() bool {
		select {
		case err := <-done:
			return err == nil
		default:
			return syscall.Kill(os.Getpid(), syscall.SIGTERM) != nil
		}
	})
	if c.ExitCode() != 137 {
		t.Errorf("exit code %d", c.ExitCode())
	}
}

func TestExecEndsWithItsChildWhateverHoldsThePipe(t *testing.T) {
	c, out := command(nil, "sh", "-c", "sleep 300 & echo $!; exit 4")
	s := sinkRecorder{}
	if err := c.Run(t.Context(), nil, &s); err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(out.String()))
	if err != nil || c.ExitCode() != 4 || s.count() != 1 {
		t.Fatalf("exit code %d, output %q, lines %q", c.ExitCode(), out, s.lines)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Errorf("the sleeper was not there to hold the pipe: %v", err)
	}
}

// slowSink takes nothing until it is let.
type slowSink struct {
	sinkRecorder
	open chan struct{}
}

func (s *slowSink) Emit(ctx context.Context, b *source.Batch) error {
	<-s.open
	return s.sinkRecorder.Emit(ctx, b)
}

func TestExecCollectsWhatAHeldPipeHolds(t *testing.T) {
	c, _ := command(nil, "sh", "-c", "seq 1 20000; sleep 300 & echo $! >&2")
	pids := &bytes.Buffer{}
	c.Stderr = pids
	s := slowSink{open: make(chan struct{})}
	time.AfterFunc(heldOutput+heldOutput/2, func() { close(s.open) }) // the deadline of the pipe passes meanwhile
	if err := c.Run(t.Context(), nil, &s); err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(pids.String()))
	if err != nil {
		t.Fatal(err)
	}
	_ = syscall.Kill(pid, syscall.SIGKILL)
	if n := s.count(); n != 20001 {
		t.Errorf("%d lines of 20001", n)
	}
}

// deaf is a pipe whose reader has left after some bytes.
type deaf struct{ left int }

func (d *deaf) Write(b []byte) (int, error) {
	if d.left -= len(b); d.left < 0 {
		return 0, syscall.EPIPE
	}
	return len(b), nil
}

func TestAReaderThatLeavesEndsTheChildAsWithoutUs(t *testing.T) {
	c, _ := command(nil, "sh", "-c", "while echo line; do :; done")
	c.Stdout = &deaf{left: 4096}
	s := sinkRecorder{}
	if err := c.Run(t.Context(), nil, &s); err != nil {
		t.Fatal(err)
	}
	if c.ExitCode() == 0 || s.count() < 4096/len("line\n") {
		t.Errorf("exit code %d, %d lines", c.ExitCode(), s.count())
	}
}

func TestExecRefusesWhatItCannotRun(t *testing.T) {
	c, _ := command(nil, "/does/not/exist")
	if err := c.Run(t.Context(), nil, &sinkRecorder{}); err == nil || c.ExitCode() != 127 {
		t.Errorf("error %v, exit code %d", err, c.ExitCode())
	}
	c, _ = command(map[string]string{"THEAZO_AGENT_ID": "a b"}, "true")
	if err := c.Run(t.Context(), nil, &sinkRecorder{}); err == nil || !strings.Contains(err.Error(), "THEAZO_AGENT_ID") {
		t.Errorf("error %v", err)
	}
}

// A full buffer must not stop the command: it waits for a moment, and then its
// output is only passed on, and the gap says what was not kept.
func TestAFullBufferStopsTheCommandForAMomentOnly(t *testing.T) {
	marker := filepath.Join(t.TempDir(), "done")
	const lines = 20_000
	c, out := command(map[string]string{"THEAZO_AGENT_ID": "agt_1"}, "sh", "-c",
		`i=0; while [ $i -lt 20000 ]; do echo "line $i of a command that has much to say and little time"; i=$((i+1)); done; touch "$0"`, marker)
	c.stall = 50 * time.Millisecond
	sink := sourcetest.NewSink()
	release := sink.Block()
	done := make(chan error, 1)
	started := &startedFirst{Sink: sink}
	go func() { done <- c.Run(t.Context(), nil, started) }()
	for limit := time.After(time.Minute); ; {
		if _, err := os.Stat(marker); err == nil {
			break
		}
		select {
		case <-limit:
			t.Fatal("the command waits for the buffer")
		case <-time.After(10 * time.Millisecond):
		}
	}
	release()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	kept, missing := 0, int64(0)
	for _, l := range sourcetest.LinesOf(sink.Records()) {
		kept += len(l)
	}
	for _, g := range sourcetest.GapsOf(sink.Records()) {
		missing += g.Count
	}
	if missing == 0 || int64(kept)+missing != lines || bytes.Count(out.Bytes(), []byte{'\n'}) != lines {
		t.Fatalf("%d lines kept, %d missing, %d passed on", kept, missing, bytes.Count(out.Bytes(), []byte{'\n'}))
	}
}

// startedFirst takes the start of a child at once: events wait for no room.
type startedFirst struct{ *sourcetest.Sink }

func (s *startedFirst) Emit(ctx context.Context, b *source.Batch) error {
	if len(b.Lines) == 0 && len(b.Gaps) == 0 {
		return nil
	}
	return s.Sink.Emit(ctx, b)
}
