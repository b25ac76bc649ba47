package docker

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/moby/moby/client"

	"github.com/theazo/observability/agentd/source"
	"github.com/theazo/observability/agentd/source/sourcetest"
	"github.com/theazo/observability/shared/telemetry"
	"github.com/theazo/observability/test/dockertest"
)

// noLines is a sink that takes everything but lines until it is opened: the node's
// buffer is full of logs.
type noLines struct {
	source.Sink
	open chan struct{}
}

func (s *noLines) Emit(ctx context.Context, b *source.Batch) error {
	if len(b.Lines) > 0 {
		select {
		case <-s.open:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return s.Sink.Emit(ctx, b)
}

// exits are the exits of a container that were told.
func exitsOf(records []sourcetest.Record, id string) []telemetry.Event {
	return slices.DeleteFunc(sourcetest.EventsOf(records, telemetry.SandboxID(id)),
		func(e telemetry.Event) bool { return e.Type != telemetry.SandboxExited })
}

// A container dies while megabytes of its lines are unread, and nobody takes lines.
func TestLastWordsGoAheadOfABacklog(t *testing.T) {
	e := dockertest.NewEngine(t)
	image := e.Image(t, linegen)
	gate := &noLines{open: make(chan struct{})}
	l := startVia(t, e.Host(), nil, func(to source.Sink) source.Sink {
		gate.Sink = to
		return gate
	})
	const lines, size, every = 60_000, 200, 1000
	id := e.Run(t, dockertest.RunOptions{Image: image, Labels: labels(t), Cmd: []string{
		"-n", strconv.Itoa(lines), "-size", strconv.Itoa(size), "-stderr-every", strconv.Itoa(every), "-exit-code", "3",
	}})
	l.awaitEvent(t, telemetry.SandboxExited, id)
	records := l.sink.Records()
	if n := len(sourcetest.LinesOf(records)); n != 0 {
		t.Fatalf("lines of %d streams came although nobody takes them", n)
	}
	exit := exitsOf(records, id)[0]
	words := exit.LastWords
	if words == nil {
		t.Fatalf("no last words with %+v", exit)
	}
	if exit.ExitCode == nil || *exit.ExitCode != 3 || exit.Reason != "error" || words.Signal != "" || words.OOMKilled {
		t.Errorf("the exit is %+v, with %q, %v", exit, words.Signal, words.OOMKilled)
	}
	if words.Duration <= 0 || words.CPUTime <= 0 || words.MemoryPeak <= 0 || !strings.HasPrefix(words.ImageDigest, "sha256:") {
		t.Errorf("duration %s, CPU time %s, memory %d, image %q", words.Duration, words.CPUTime, words.MemoryPeak, words.ImageDigest)
	}
	if !strings.HasSuffix(words.Stdout, linegenLine(lines-1, size)+"\n") || !strings.HasSuffix(words.Stderr, linegenLine(lines, size)+"\n") {
		t.Errorf("stdout ends %q, stderr %q", last(words.Stdout, 100), last(words.Stderr, 100))
	}
	if n := len(words.Stdout); n > telemetry.MaxTail || n < telemetry.MaxTail-size-1 || !strings.HasPrefix(words.Stdout, "n=") {
		t.Errorf("%d bytes of stdout, beginning %.20q", n, words.Stdout)
	}
	// The log is longer than what is looked at, so this is an estimate.
	const all = (lines - lines/every) * (size + 1)
	if got := int64(len(words.Stdout)) + words.StdoutOmitted; got < all*9/10 || got > all*11/10 {
		t.Errorf("%d bytes of stdout kept and %d omitted, of %d", len(words.Stdout), words.StdoutOmitted, all)
	}
	close(gate.open)
	l.awaitRead(t, id)
	records = l.stop()
	if out, errs := numbers(t, records, id, telemetry.Stdout), numbers(t, records, id, telemetry.Stderr); len(out) != lines-lines/every || len(errs) != lines/every {
		t.Errorf("%d and %d lines", len(out), len(errs))
	}
	noGaps(t, records)
}

// agentd dies between an exit and the last lines before it, of which the last has
// no newline: nothing more comes, so that line is whole.
func TestTheExitIsToldBeforeACrash(t *testing.T) {
	e := dockertest.NewEngine(t)
	image := e.Image(t, linegen)
	gate := &noLines{open: make(chan struct{})}
	l := startVia(t, e.Host(), nil, func(to source.Sink) source.Sink {
		gate.Sink = to
		return gate
	})
	id := e.Run(t, dockertest.RunOptions{Image: image, Labels: labels(t), Cmd: []string{"-n", "5", "-no-newline"}})
	l.awaitEvent(t, telemetry.SandboxExited, id)
	records := l.stop()
	l = start(t, e.Host(), records)
	l.await(t, "the lines", func(r []sourcetest.Record) bool { return len(numbers(t, r, id, telemetry.Stdout)) == 5 })
	e.Remove(t, id)
	l.awaitEvent(t, telemetry.SandboxDestroyed, id)
	records = l.stop()
	checkNumbers(t, records, id, 5)
	if n := len(exitsOf(records, id)); n != 1 {
		t.Errorf("%d exits", n)
	}
	noGaps(t, records)
}

func last(s string, n int) string { return s[max(0, len(s)-n):] }

// The ends that containers come to.
func TestLastWords(t *testing.T) {
	e := dockertest.NewEngine(t)
	image := e.Image(t, linegen)
	l := start(t, e.Host(), nil)
	run := func(o dockertest.RunOptions, cmd ...string) string {
		o.Image, o.Cmd, o.Labels = image, cmd, labels(t)
		return e.Run(t, o)
	}
	short := run(dockertest.RunOptions{}, "-n", "3", "-size", "20", "-stderr-every", "3", "-no-newline")
	silent := run(dockertest.RunOptions{}, "-n", "0")
	tty := run(dockertest.RunOptions{TTY: true}, "-n", "2", "-size", "20")
	api := run(dockertest.RunOptions{LogDriver: "local"}, "-n", "3", "-size", "20", "-stderr-every", "3")
	none := run(dockertest.RunOptions{LogDriver: "none"}, "-n", "3")
	greedy := run(dockertest.RunOptions{Memory: 16 << 20}, "-n", "1", "-size", strconv.Itoa(256<<20))
	killed := run(dockertest.RunOptions{}, "-n", "2", "-sleep-after", "1h")
	rotated := run(dockertest.RunOptions{LogOpts: map[string]string{"max-size": "20k", "max-file": "20"}}, "-n", "1000", "-size", "99")
	l.awaitEvent(t, telemetry.SandboxStarted, killed)
	if _, err := e.Client().ContainerKill(t.Context(), killed, client.ContainerKillOptions{Signal: "SIGQUIT"}); err != nil {
		t.Fatal(err)
	}
	l.awaitRead(t, short, silent, tty, api, none, greedy, killed, rotated)
	again := run(dockertest.RunOptions{}, "-n", "1", "-size", "20", "-sleep-after", "1s")
	l.awaitRead(t, again)
	e.StartContainer(t, again)
	l.await(t, "the second exit", func(r []sourcetest.Record) bool { return len(exitsOf(r, again)) == 2 })
	records := l.stop()

	lines := func(numbers ...int) string {
		var s strings.Builder
		for _, n := range numbers {
			s.WriteString(linegenLine(n, 20) + "\n")
		}
		return s.String()
	}
	var many strings.Builder
	for i := 1; i <= 1000; i++ {
		many.WriteString(linegenLine(i, 99) + "\n")
	}
	kept := cutTail([]byte(many.String()))
	for _, c := range []struct {
		what, id string
		want     telemetry.LastWords
	}{
		{"short", short, telemetry.LastWords{Stdout: lines(1, 2), Stderr: strings.TrimSuffix(lines(3), "\n")}},
		{"silent", silent, telemetry.LastWords{}},
		{"terminal", tty, telemetry.LastWords{Stdout: lines(1, 2)}},
		{"local driver", api, telemetry.LastWords{Stdout: lines(1, 2), Stderr: lines(3)}},
		{"no driver", none, telemetry.LastWords{}},
		{"out of memory", greedy, telemetry.LastWords{OOMKilled: true, Signal: "SIGKILL"}},
		{"started again", again, telemetry.LastWords{Stdout: lines(1)}},
		{"rotated", rotated, telemetry.LastWords{Stdout: string(kept), StdoutOmitted: int64(many.Len() - len(kept))}},
	} {
		exits := exitsOf(records, c.id)
		for i := range exits {
			got := exits[i].LastWords
			if got == nil {
				t.Errorf("%s: no last words with %+v", c.what, exits[i])
				continue
			}
			if got.Stdout != c.want.Stdout || got.Stderr != c.want.Stderr || got.Signal != c.want.Signal || got.OOMKilled != c.want.OOMKilled {
				t.Errorf("%s: stdout %q, stderr %q, signal %q, out of memory %v", c.what, last(got.Stdout, 200), last(got.Stderr, 200), got.Signal, got.OOMKilled)
			}
			if over := got.StdoutOmitted - c.want.StdoutOmitted; over < 0 || over > c.want.StdoutOmitted/20 || got.StderrOmitted != 0 {
				t.Errorf("%s: %d and %d bytes omitted, want %d and 0", c.what, got.StdoutOmitted, got.StderrOmitted, c.want.StdoutOmitted)
			}
		}
	}
	if got := exitsOf(records, killed)[0]; got.LastWords.Signal != "" || got.ExitCode == nil || *got.ExitCode != 2 {
		// A Go program prints its goroutines and exits with 2 when it is told to quit.
		t.Errorf("%+v with %+v", got, got.LastWords)
	}
	if got := exitsOf(records, killed)[0].LastWords; !strings.Contains(got.Stderr, "SIGQUIT") {
		t.Errorf("stderr of a program that was told to quit: %q", last(got.Stderr, 200))
	}
}

// Whatever lies in the files, the tail is the end of what reading forwards gives.
func TestTailsAgainstReadingForwards(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 7))
	for round := range 40 {
		dir, base := t.TempDir(), "x-json.log"
		at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
		var want [telemetry.Stderr + 1]strings.Builder
		var files [][]byte
		for range 1 + random.IntN(4) {
			var file []byte
			for range random.IntN(1 << random.IntN(11)) {
				text := strings.Repeat(string(rune('a'+random.IntN(26))), random.IntN(1<<random.IntN(14)))
				if random.IntN(4) > 0 {
					text += "\n"
				} else if text == "" {
					text = "é\x01"
				}
				stream := telemetry.Stdout
				if random.IntN(5) == 0 {
					stream = telemetry.Stderr
				}
				want[stream].WriteString(text)
				at = at.Add(time.Millisecond)
				file = appendRecord(file, text, stream.String(), at)
			}
			files = append(files, file)
		}
		log := newTail(dir, base)
		for i, file := range files { // oldest first
			name := base
			if older := len(files) - 1 - i; older > 0 {
				name += "." + strconv.Itoa(older)
			}
			writeFile(t, filepath.Join(dir, name), file)
		}
		if round%2 == 0 { // only the last is held
			if _, err := log.pin(); err != nil {
				t.Fatal(err)
			}
			for len(log.files) > 1 {
				log.letGo(log.files[0])
			}
		} else {
			if _, err := log.pin(); err != nil {
				t.Fatal(err)
			}
			for _, f := range log.files { // all are held, and have no name
				if err := os.Remove(f.f.Name()); err != nil {
					t.Fatal(err)
				}
			}
		}
		var got tails
		if err := got.readFiles(log, log.end(), time.Time{}); err != nil {
			t.Fatal(err)
		}
		for stream := telemetry.Stdout; stream <= telemetry.Stderr; stream++ {
			all := want[stream].String()
			text, omitted := got.streams[stream].text(&got)
			if got.unread == 0 && int64(len(all)) != omitted+int64(len(text)) {
				t.Errorf("round %d: %s: %d bytes and %d omitted, of %d", round, stream, len(text), omitted, len(all))
			}
			if !strings.HasSuffix(all, text) || text != string(cutTail([]byte(all))) {
				t.Errorf("round %d: %s: %d bytes of %d, ending %q, not %q", round, stream, len(text), len(all), last(text, 20), last(all, 20))
			}
		}
		log.close()
	}
}

func TestCutTail(t *testing.T) {
	line := strings.Repeat("x", 99) + "\n"
	for _, c := range []struct{ text, want string }{
		{"", ""},
		{"a\nb", "a\nb"},
		{strings.Repeat("y", telemetry.MaxTail), strings.Repeat("y", telemetry.MaxTail)},
		{"head\n" + strings.Repeat("y", telemetry.MaxTail), strings.Repeat("y", telemetry.MaxTail)},
		{strings.Repeat(line, 1000), strings.Repeat(line, telemetry.MaxTail/100)},
		{strings.Repeat("é", telemetry.MaxTail) + "a", strings.Repeat("é", telemetry.MaxTail/2-1) + "a"},
		{"z\n" + strings.Repeat("y", telemetry.MaxTail-10) + "\n" + strings.Repeat("x", 20), strings.Repeat("y", telemetry.MaxTail-21) + "\n" + strings.Repeat("x", 20)},
	} {
		got := string(cutTail([]byte(c.text)))
		if got != c.want || !utf8.ValidString(got) {
			t.Errorf("%d bytes: %d were kept, beginning %.20q, want %d, beginning %.20q", len(c.text), len(got), got, len(c.want), c.want)
		}
	}
}

func TestSignalOf(t *testing.T) {
	for code, want := range map[int]string{0: "", 1: "", 128: "", 129: "SIGHUP", 137: "SIGKILL", 139: "SIGSEGV", 143: "SIGTERM", 255: "", -1: ""} {
		if got := signalOf(code); got != want {
			t.Error(fmt.Sprint(code, ": ", got, ", want ", want))
		}
	}
}
