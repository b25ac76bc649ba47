package docker

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/theazo/observability/agentd/source/sourcetest"
	"github.com/theazo/observability/shared/telemetry"
	"github.com/theazo/observability/test/dockertest"
)

func typesOf(records []sourcetest.Record, id string) []telemetry.EventType {
	var types []telemetry.EventType
	for _, e := range sourcetest.EventsOf(records, telemetry.SandboxID(id)) {
		types = append(types, e.Type)
	}
	return types
}

// The engine stops with its containers, comes back, and new ones start.
func TestTheEngineIsRestarted(t *testing.T) {
	for name, restart := range map[string]func(*testing.T, *dockertest.Engine){
		"stopped": func(t *testing.T, e *dockertest.Engine) { t.Helper(); e.Restart(t) },
		"killed":  func(t *testing.T, e *dockertest.Engine) { t.Helper(); e.Kill(t); e.Start(t) },
	} {
		t.Run(name, func(t *testing.T) { restartEngine(t, restart) })
	}
}

func restartEngine(t *testing.T, restart func(*testing.T, *dockertest.Engine)) {
	t.Helper()
	e := dockertest.NewPrivate(t)
	image := e.Image(t, linegen)
	l := start(t, e.Host(), nil)
	before := e.Run(t, dockertest.RunOptions{Image: image, Cmd: []string{"-n", "100", "-sleep-after", "1h"}, Labels: labels(t)})
	l.await(t, "the first lines", func(r []sourcetest.Record) bool { return len(numbers(t, r, before, telemetry.Stdout)) == 100 })
	restart(t, e)
	after := e.Run(t, dockertest.RunOptions{Image: image, Cmd: []string{"-n", "100"}, Labels: labels(t)})
	l.awaitRead(t, before, after)
	e.StartContainer(t, before)
	l.await(t, "the second run", func(r []sourcetest.Record) bool {
		types := typesOf(r, before)
		return len(numbers(t, r, before, telemetry.Stdout)) == 200 && types[len(types)-1] == telemetry.SandboxStarted
	})
	records := l.stop()
	checkNumbers(t, records, after, 100)
	noGaps(t, records)
	want := []telemetry.EventType{telemetry.SandboxCreated, telemetry.SandboxStarted, telemetry.SandboxExited, telemetry.SandboxStarted}
	got := slices.DeleteFunc(typesOf(records, before), func(e telemetry.EventType) bool { return e == telemetry.SandboxKilled })
	if !slices.Equal(got, want) {
		t.Errorf("events %v, want %v", got, want)
	}
}

// The source starts before its engine.
func TestTheEngineComesLater(t *testing.T) {
	e := dockertest.NewPrivate(t)
	image := e.Image(t, linegen)
	e.Stop(t)
	l := start(t, e.Host(), nil)
	e.Start(t)
	id := e.Run(t, dockertest.RunOptions{Image: image, Cmd: []string{"-n", "10"}, Labels: labels(t)})
	l.awaitRead(t, id)
	checkNumbers(t, l.stop(), id, 10)
}

// What happened while agentd was away is found by comparing.
func TestWhatHappenedWhileAgentdWasAway(t *testing.T) {
	e := dockertest.NewEngine(t)
	image := e.Image(t, linegen)
	run := func(cmd ...string) string {
		return e.Run(t, dockertest.RunOptions{Image: image, Cmd: cmd, Labels: labels(t, "theazo.agent_id", "agt_away")})
	}
	l := start(t, e.Host(), nil)
	ended := run("-n", "10", "-rate", "10", "-exit-code", "3")
	removed := run("-n", "5", "-sleep-after", "1h")
	stays := run("-n", "5", "-sleep-after", "1h")
	l.await(t, "the first lines", func(r []sourcetest.Record) bool {
		return len(numbers(t, r, ended, telemetry.Stdout)) > 2 && len(numbers(t, r, removed, telemetry.Stdout)) == 5 && len(numbers(t, r, stays, telemetry.Stdout)) == 5
	})
	records := l.stop()

	e.AwaitExit(t, ended)
	e.Remove(t, removed)
	whole := run("-n", "20")
	e.AwaitExit(t, whole)

	l = start(t, e.Host(), records)
	l.awaitRead(t, ended, removed, whole)
	l.awaitEvent(t, telemetry.SandboxDestroyed, removed)
	records = l.stop()
	checkNumbers(t, records, ended, 10)
	checkNumbers(t, records, removed, 5)
	checkNumbers(t, records, stays, 5)
	checkNumbers(t, records, whole, 20)
	noGaps(t, records)
	started := []telemetry.EventType{telemetry.SandboxCreated, telemetry.SandboxStarted}
	exited := append(slices.Clone(started), telemetry.SandboxExited)
	for id, want := range map[string][]telemetry.EventType{
		ended: exited, stays: started, removed: append(slices.Clone(exited), telemetry.SandboxDestroyed),
	} {
		got := slices.DeleteFunc(typesOf(records, id), func(e telemetry.EventType) bool { return e == telemetry.SandboxKilled })
		if !slices.Equal(got, want) {
			t.Errorf("events %v, want %v", got, want)
		}
	}
	for _, ev := range sourcetest.EventsOf(records, telemetry.SandboxID(ended)) {
		if ev.Type == telemetry.SandboxExited && (ev.ExitCode == nil || *ev.ExitCode != 3 || ev.Agent != "agt_away") {
			t.Errorf("the exit while away: %+v", ev)
		}
	}
	for _, ev := range sourcetest.EventsOf(records, telemetry.SandboxID(removed)) {
		if ev.Agent != "agt_away" {
			t.Errorf("an event of a container that was gone names agent %q", ev.Agent)
		}
	}
}

// A blocked sink stops reading, not the engine; nothing is lost.
func TestABlockedSinkDelaysNobody(t *testing.T) {
	e := dockertest.NewEngine(t)
	image := e.Image(t, linegen)
	l := start(t, e.Host(), nil)
	release := l.sink.Block()
	var all []string
	for range 10 {
		all = append(all, e.Run(t, dockertest.RunOptions{Image: image, Cmd: []string{"-n", "50"}, Labels: labels(t)}))
	}
	for _, id := range all {
		e.AwaitExit(t, id)
	}
	for _, id := range all {
		e.Remove(t, id)
	}
	release()
	l.awaitEvent(t, telemetry.SandboxDestroyed, all...)
	records := l.stop()
	for _, id := range all {
		checkNumbers(t, records, id, 50)
	}
	noGaps(t, records)
}

// A long line from files and through the API, in both of its forms, and a driver
// that keeps nothing.
func TestLongLinesOfOtherDriversAndNone(t *testing.T) {
	e := dockertest.NewEngine(t)
	for name, host := range map[string]string{"files": e.Host(), "api": remote(t, e.Host())} {
		t.Run(name, func(t *testing.T) { longLinesOfOtherDriversAndNone(t, e, host) })
	}
}

func longLinesOfOtherDriversAndNone(t *testing.T, e *dockertest.Engine, host string) {
	t.Helper()
	image := e.Image(t, linegen)
	l := start(t, host, nil)
	run := func(o dockertest.RunOptions, cmd ...string) string {
		o.Image, o.Cmd, o.Labels = image, cmd, labels(t)
		return e.Run(t, o)
	}
	long := run(dockertest.RunOptions{LogDriver: "local"}, "-size", "50000")
	tty := run(dockertest.RunOptions{LogDriver: "local", TTY: true}, "-size", "50000")
	huge := run(dockertest.RunOptions{LogDriver: "local"}, "-one-mib-line")
	none := run(dockertest.RunOptions{LogDriver: "none"}, "-n", "10")
	l.awaitRead(t, long, tty, huge, none)
	// The end of a run does not wait for what comes through the API.
	l.await(t, "a line of each", func(r []sourcetest.Record) bool {
		lines := sourcetest.LinesOf(r)
		return !slices.ContainsFunc([]string{long, tty, huge}, func(id string) bool {
			return len(lines[sourcetest.Stream{Sandbox: telemetry.SandboxID(id), Stream: telemetry.Stdout}]) == 0
		})
	})
	records := l.stop()
	for _, id := range []string{long, tty} {
		lines := sourcetest.LinesOf(records)[sourcetest.Stream{Sandbox: telemetry.SandboxID(id), Stream: telemetry.Stdout}]
		if len(lines) != 1 || string(lines[0].Text) != linegenLine(1, 50000) {
			t.Errorf("a line of 50,000 bytes (terminal: %v) came as %d lines", id == tty, len(lines))
			for _, l := range lines {
				t.Logf("%d bytes at %v, partial %v", len(l.Text), l.Timestamp, l.Partial)
			}
		}
	}
	lines := sourcetest.LinesOf(records)[sourcetest.Stream{Sandbox: telemetry.SandboxID(huge), Stream: telemetry.Stdout}]
	if len(lines) != 1 || !lines[0].Truncated || len(lines[0].Text) != telemetry.MaxMessage || lines[0].Original != 1<<20 {
		t.Errorf("1 MiB in one line came as %d lines", len(lines))
		for _, l := range lines {
			t.Logf("%d bytes at %v, partial %v", len(l.Text), l.Timestamp, l.Partial)
		}
	}
	gaps := sourcetest.GapsOf(records)
	if len(gaps) != 1 || gaps[0].Reason != telemetry.GapUnreadable || gaps[0].Sandbox != telemetry.SandboxID(none) {
		t.Errorf("gaps %+v, want one of the container whose driver keeps nothing", gaps)
	}
}

// Containers that were there before the first start ever are read from the
// configured place, and only that once.
func TestFromNow(t *testing.T) {
	e := dockertest.NewEngine(t)
	image := e.Image(t, linegen)
	old := e.Run(t, dockertest.RunOptions{Image: image, Cmd: []string{"-n", "10"}, Labels: labels(t)})
	e.AwaitExit(t, old)
	now := func(c *Config) { c.From = FromNow }
	l := start(t, e.Host(), nil, now)
	l.await(t, "the comparison", func(r []sourcetest.Record) bool { return sourcetest.PositionsOf(r)[eventsKey] != nil })
	fresh := e.Run(t, dockertest.RunOptions{Image: image, Cmd: []string{"-n", "10"}, Labels: labels(t)})
	l.awaitRead(t, fresh)
	records := l.stop()
	away := e.Run(t, dockertest.RunOptions{Image: image, Cmd: []string{"-n", "10"}, Labels: labels(t)})
	e.AwaitExit(t, away)
	e.StartContainer(t, old)
	e.AwaitExit(t, old)
	l = start(t, e.Host(), records, now)
	l.awaitRead(t, away)
	l.await(t, "the old container's second run", func(r []sourcetest.Record) bool { return len(numbers(t, r, old, telemetry.Stdout)) >= 10 })
	records = l.stop()
	checkNumbers(t, records, fresh, 10)
	checkNumbers(t, records, away, 10)
	checkNumbers(t, records, old, 10)
}

// A directory that the engine left behind long ago is nobody's container, and a
// container that is not to be read is not held.
func TestWhatIsNotRead(t *testing.T) {
	e := dockertest.NewEngine(t)
	image := e.Image(t, linegen)
	leftover := strings.Repeat("0123456789abcdef", 4)
	dir := filepath.Join(e.Root(), "containers", leftover)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	writeFile(t, filepath.Join(dir, leftover+"-json.log"), appendRecord(nil, "left behind\n", "stdout", time.Now()))
	writeFile(t, filepath.Join(dir, configFile), fmt.Appendf(nil, `{"ID":%q,"Config":{"Labels":{"test":%q}}}`, leftover, t.Name()))
	e.Run(t, dockertest.RunOptions{Image: image, Cmd: []string{"-n", "5"}})

	l := start(t, e.Host(), nil)
	excluded := e.Run(t, dockertest.RunOptions{Image: image, Cmd: []string{"-n", "5"}})
	e.AwaitExit(t, excluded)
	ours := e.Run(t, dockertest.RunOptions{Image: image, Cmd: []string{"-n", "5", "-sleep-after", "2s"}, Labels: labels(t)})
	l.awaitRead(t, ours) // the comparison's second look was meanwhile
	records := l.stop()
	for stream := range sourcetest.LinesOf(records) {
		if stream.Sandbox != telemetry.SandboxID(ours) {
			t.Errorf("lines of %.12s were read", stream.Sandbox)
		}
	}
	checkNumbers(t, records, ours, 5)
	for i := range records {
		for _, ev := range records[i].Events {
			if ev.Sandbox != telemetry.SandboxID(ours) {
				t.Errorf("%s of %.12s was told", ev.Type, ev.Sandbox)
			}
		}
	}
}
