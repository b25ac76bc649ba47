package intake

import (
	"bytes"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/go-hclog"
	"pgregory.net/rapid"

	"github.com/theazo/observability/agentd/source"
	"github.com/theazo/observability/shared/telemetry"
)

// traces reads testdata/traces: the messages of each file, which stand between
// lines of "=====".
func traces(tb testing.TB) map[string][]string {
	tb.Helper()
	files, err := filepath.Glob("testdata/traces/*.txt")
	if err != nil || len(files) < 5 {
		tb.Fatalf("%d files: %v", len(files), err)
	}
	all := map[string][]string{}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			tb.Fatal(err)
		}
		all[filepath.Base(f)] = strings.Split(strings.TrimSuffix(string(b), "\n"), "\n=====\n")
	}
	return all
}

func messages(lines []telemetry.LogEntry) (list []string) {
	for i := range lines {
		list = append(list, lines[i].Message)
	}
	return list
}

// TestTracesAreJoined takes each file in one batch, and in two that are parted
// at every line, with a pause that is short enough.
func TestTracesAreJoined(t *testing.T) {
	for name, want := range traces(t) {
		lines := strings.Split(strings.Join(want, "\n"), "\n")
		for at := range len(lines) + 1 {
			synctest.Test(t, func(t *testing.T) {
				q := &memory{}
				in, stop := start(t, Config{}, q)
				sink := in.Sink("s")
				for _, part := range [][]string{lines[:at], lines[at:]} {
					if len(part) > 0 {
						emit(t, sink, batchOf(part...))
					}
					<-time.After(joinWait / 2)
				}
				if err := stop(); err != nil {
					t.Fatal(err)
				}
				got, _ := q.all()
				// A log line that an exception's own line follows is not known to
				// have more to come.
				if d := cmp.Diff(want, messages(got)); d != "" && !partsKnown(name, lines, at) {
					t.Errorf("%s parted at line %d (-want +got):\n%s", name, at, d)
				}
			})
		}
	}
}

// partsKnown are the places where a pause parts a trace, because the line
// before it says nothing of one: no line waits without a reason.
func partsKnown(name string, lines []string, at int) bool {
	if at == 0 || at == len(lines) {
		return false
	}
	before, behind := lines[at-1], lines[at]
	switch name {
	case "python.txt": // logger.exception's line
		return strings.HasPrefix(behind, "Traceback") && strings.Contains(before, " ERROR ")
	case "java.txt": // a logger's line
		return strings.HasPrefix(behind, "java.lang.") && strings.Contains(before, " ERROR ")
	case "ruby.txt":
		return strings.HasPrefix(behind, "\tfrom ") && strings.HasPrefix(before, "app.rb")
	}
	return false
}

// TestTracesOfInterleavedStreams: both streams of a sandbox are joined apart.
func TestTracesOfInterleavedStreams(t *testing.T) {
	all := traces(t)
	want := map[telemetry.Stream][]string{telemetry.Stdout: all["java.txt"], telemetry.Stderr: all["python.txt"]}
	q := &memory{}
	in, stop := start(t, Config{}, q)
	sink := in.Sink("s")
	rest := map[telemetry.Stream][]string{}
	for s, messages := range want {
		rest[s] = strings.Split(strings.Join(messages, "\n"), "\n")
	}
	b := &source.Batch{Target: target}
	for len(rest[telemetry.Stdout])+len(rest[telemetry.Stderr]) > 0 {
		for _, s := range []telemetry.Stream{telemetry.Stdout, telemetry.Stderr} {
			if len(rest[s]) > 0 {
				l := line(rest[s][0])
				l.Stream = s
				b.Lines, rest[s] = append(b.Lines, l), rest[s][1:]
			}
		}
	}
	emit(t, sink, b)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	lines, _ := q.all()
	got := map[telemetry.Stream][]string{}
	for i := range lines {
		got[lines[i].Stream] = append(got[lines[i].Stream], lines[i].Message)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}

// TestTraceLevels: a trace that states no level is taken for an error, and says
// that this is a guess.
func TestTraceLevels(t *testing.T) {
	q := &memory{}
	in, stop := start(t, Config{}, q)
	for _, name := range []string{"go.txt", "key.txt", "java.txt"} {
		emit(t, in.Sink("s"), batchOf(strings.Split(strings.Join(traces(t)[name], "\n"), "\n")...))
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	lines, _ := q.all()
	for _, e := range lines {
		want := telemetry.Info
		if strings.Contains(e.Message, "\n") && !strings.HasPrefix(e.Message, "-----") || strings.Contains(e.Message, "ERROR") {
			want = telemetry.Error
		}
		stated := strings.Contains(e.Message, " 1 --- ") || strings.HasPrefix(e.Message, "panic: ")
		if e.Level != want || e.LevelInferred == stated {
			t.Errorf("%.60q: level %s, inferred %v", e.Message, e.Level, e.LevelInferred)
		}
	}
}

// TestHoldsEnd: what is held leaves after joinWait, or joinMost while more of it
// comes, or when it is too much; and when its sandbox ends.
func TestHoldsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := &memory{}
		in, stop := start(t, Config{}, q)
		sink := in.Sink("s")
		emit(t, sink, batchOf("before", "panic: x"))
		<-time.After(joinWait - 2*time.Millisecond)
		synctest.Wait()
		if q.count() != 0 {
			t.Fatal("a trace was cut before it could come")
		}
		<-time.After(10 * time.Millisecond)
		synctest.Wait()
		if lines, _ := q.all(); len(lines) != 2 {
			t.Fatalf("%d lines after the wait", len(lines))
		}
		began := time.Now()
		for q.count() == 1 { // frames for ever
			emit(t, sink, batchOf("goroutine 1 [running]:", "main.main()"))
			<-time.After(joinWait / 4)
			synctest.Wait()
		}
		if took := time.Since(began); took < joinMost || took > joinMost+joinWait {
			t.Errorf("held for %v", took)
		}
		<-time.After(joinMost)
		synctest.Wait()
		n := q.count()
		for range maxJoinedLines + 10 {
			emit(t, sink, batchOf("\tat a.b.C(D.java:1)"))
		}
		emit(t, sink, batchOf("end"))
		<-time.After(joinMost)
		synctest.Wait()
		var long []int
		for _, a := range q.appends[n:] {
			for _, e := range a.lines {
				long = append(long, strings.Count(e.Message, "\n")+1)
			}
		}
		if !slices.Equal(long, []int{maxJoinedLines, 10, 1}) {
			t.Errorf("messages of %v lines", long)
		}
		n = q.count()
		emit(t, sink, batchOf("panic: y"))
		b := batchOf("main.main()")
		b.Events = []telemetry.Event{{Type: telemetry.SandboxExited}}
		emit(t, sink, b)
		<-time.After(30 * time.Millisecond)
		synctest.Wait()
		if q.count() == n {
			t.Error("the exit of a sandbox waits for a trace")
		}
		emit(t, sink, batchOf("panic: z"))
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		if lines, _ := q.all(); lines[len(lines)-1].Message != "panic: z" {
			t.Error("Run left behind what was held")
		}
		if in.holds.bytes != 0 || len(in.holds.by)+len(in.holds.keys) != 0 {
			t.Errorf("holds are left: %+v", in.holds)
		}
	})
}

// TestCrashWithinTraces kills the process at any append, with traces in any
// split over any sandboxes: a new one that reads on from the durable positions
// completes every stream, with nothing lost and nothing twice.
func TestCrashWithinTraces(t *testing.T) {
	var lines []string
	for _, name := range []string{"go.txt", "python.txt", "java.txt", "node.txt", "prose.txt"} {
		lines = append(lines, strings.Split(strings.Join(traces(t)[name], "\n"), "\n")...)
	}
	rapid.Check(t, func(rt *rapid.T) {
		const sandboxes = 3
		durable := &memory{positions: map[string][]byte{}}
		got := map[telemetry.SandboxID][]string{}
		for range 6 {
			crashed := &memory{positions: map[string][]byte{}}
			live := New(Config{RequireOrg: true}, crashed, hclog.NewNullLogger(), nil)
			maps.Copy(crashed.positions, durable.positions)
			at := map[string]int{}
			for k, v := range live.Resume("d", crashed.positions) {
				at[k], _ = strconv.Atoi(string(v))
			}
			last := rapid.IntRange(0, 3).Draw(rt, "crashes") == 0
			for steps := 0; ; steps++ {
				open := 0
				for i := range sandboxes {
					key := strconv.Itoa(i)
					n := min(rapid.IntRange(0, 12).Draw(rt, "lines"), len(lines)-at[key])
					open += len(lines) - at[key]
					if n == 0 {
						continue
					}
					b := batchOf(lines[at[key] : at[key]+n]...)
					b.Origin.Sandbox = telemetry.SandboxID(key)
					at[key] += n
					b.Positions = source.Positions{key: []byte(strconv.Itoa(at[key]))}
					emit(t, live.Sink("d"), b)
				}
				if rapid.Bool().Draw(rt, "cut") {
					flushNow(rt, live, false)
				}
				if open == 0 || !last && steps == 6 {
					break
				}
			}
			if last {
				flushNow(rt, live, true)
			}
			for _, a := range crashed.appends {
				for _, e := range a.lines {
					got[e.Sandbox] = append(got[e.Sandbox], strings.Split(e.Message, "\n")...)
				}
			}
			durable.positions = crashed.positions
			if last {
				for i := range sandboxes {
					if d := cmp.Diff(lines, got[telemetry.SandboxID(strconv.Itoa(i))]); d != "" {
						rt.Fatalf("sandbox %d (-want +got):\n%s", i, d)
					}
				}
				return
			}
		}
	})
}

// flushNow does what Run does, at once: a crash is when nobody calls it again.
func flushNow(rt *rapid.T, in *Intake, all bool) {
	in.mu.Lock()
	in.releaseDue(all)
	in.events.cut()
	in.logs.cut()
	in.mu.Unlock()
	for _, l := range []*lane{&in.events, &in.logs} {
		if err := in.flush(rt.Context(), l, in.append); err != nil {
			rt.Fatal(err)
		}
	}
}

// FuzzJoiner feeds any lines in any batches: what is joined is of one stream, in
// order, each line at most once, and not too much.
func FuzzJoiner(f *testing.F) {
	for _, messages := range traces(f) {
		f.Add([]byte(strings.Join(messages, "\n")), uint64(0x5555), uint16(7))
	}
	f.Fuzz(func(t *testing.T, text []byte, streams uint64, split uint16) {
		var j joiner
		j.reset()
		var lines []source.Line
		for i, part := range bytes.Split(text, []byte("\n")) {
			l := source.Line{Text: part, Stream: telemetry.Stream(1 + streams>>(i%64)&1), Partial: len(part)%7 == 6}
			lines = append(lines, l)
			if i%(int(split)+1) == 0 {
				j.feed(lines)
				j.open(lines)
			}
		}
		j.feed(lines)
		to := map[int32]bool{}
		var c chains
		c.set(len(lines), j.joins)
		for _, one := range j.joins {
			if one.from >= one.to || int(one.to) >= len(lines) || lines[one.from].Stream != lines[one.to].Stream || to[one.to] || lines[one.from].Partial {
				t.Fatalf("join %v of %d lines", one, len(lines))
			}
			to[one.to] = true
		}
		whole := 0
		for i := range lines {
			if len(j.joins) == 0 {
				return // nobody asks
			}
			switch c.at(i) {
			case heads:
				l := c.line(lines, i)
				if n := bytes.Count(l.Text, []byte("\n")) + 1; n > maxJoinedLines || len(l.Text) > maxJoinedBytes {
					t.Fatalf("%d lines and %d bytes are joined", n, len(l.Text))
				}
				whole += bytes.Count(l.Text, []byte("\n")) + 1
			case alone:
				whole++
			}
		}
		if whole != len(lines) {
			t.Fatalf("%d lines of %d came out", whole, len(lines))
		}
	})
}
