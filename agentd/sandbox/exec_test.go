package sandbox

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/theazo/observability/agentd/source"
	"github.com/theazo/observability/shared/execstream"
	"github.com/theazo/observability/shared/telemetry"
)

// wrapped is a command that runs under agentd-exec.
type wrapped struct {
	*exec.Cmd
	in       io.WriteCloser
	out, err bytes.Buffer
	want     [2][]byte
	blocks   *odd
}

func wrap(t *testing.T, endpoint string, seed uint64, size int, env ...string) *wrapped {
	t.Helper()
	w := &wrapped{blocks: newOdd(seed, size)}
	w.Cmd = exec.CommandContext(t.Context(), os.Args[0], "--", os.Args[0], strconv.FormatUint(seed, 10), strconv.Itoa(size))
	w.Cmd.Env = append(append(os.Environ(), "TEST_AS=agentd-exec", "THEAZO_ENDPOINT="+endpoint, "THEAZO_EXEC_LINGER=60s"), env...)
	w.Stdout, w.Stderr = &w.out, &w.err
	var err error
	if w.in, err = w.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := w.Start(); err != nil {
		t.Fatal(err)
	}
	return w
}

// write makes the command write some blocks.
func (w *wrapped) write(t *testing.T, blocks int) {
	t.Helper()
	for range blocks {
		stream, b := w.blocks.next()
		w.want[stream] = append(w.want[stream], b...)
	}
	if _, err := w.in.Write(make([]byte, blocks)); err != nil {
		t.Fatal(err)
	}
}

// end ends the command and checks what passed.
func (w *wrapped) end(t *testing.T) {
	t.Helper()
	_ = w.in.Close()
	_ = w.Wait()
	if code := w.ProcessState.ExitCode(); code != 7 {
		t.Errorf("the exit code is %d", code)
	}
	if !bytes.Equal(w.out.Bytes(), w.want[0]) || !bytes.Equal(w.err.Bytes(), w.want[1]) {
		t.Errorf("%d and %d bytes passed, %d and %d were written", w.out.Len(), w.err.Len(), len(w.want[0]), len(w.want[1]))
	}
}

// bytesOf puts the streams together again.
func bytesOf(lines []source.Line) (streams [2][]byte) {
	for _, l := range lines {
		i := 0
		if l.Stream == telemetry.Stderr {
			i = 1
		}
		streams[i] = append(streams[i], l.Text...)
		if !l.Partial {
			streams[i] = append(streams[i], '\n')
		}
	}
	return streams
}

func checkBytes(t *testing.T, all source.Batch, want [2][]byte) {
	t.Helper()
	got := bytesOf(all.Lines)
	for i, name := range []string{"stdout", "stderr"} {
		if !bytes.Equal(got[i], want[i]) {
			t.Errorf("%s: %d bytes arrived, %d were written", name, len(got[i]), len(want[i]))
		}
	}
	if len(all.Gaps) != 0 {
		t.Errorf("gaps %+v", all.Gaps)
	}
}

func execEndpoint(t *testing.T, sink *keeper, socket string) *endpoint {
	t.Helper()
	host := target("agt_1", "ses_1")
	return startAt(t, Config{Host: &host, Durable: sink.durable}, sink, socket)
}

func isExited(b source.Batch) bool {
	return len(b.Events) > 0 && b.Events[len(b.Events)-1].Type == telemetry.ExecExited
}

func TestAnExecSessionsBytesAreAllThere(t *testing.T) {
	for seed := range uint64(4) {
		sink := newKeeper()
		e := execEndpoint(t, sink, filepath.Join(t.TempDir(), "x", "s"))
		w := wrap(t, "unix://"+e.socket, seed, 1+int(seed)*1000, "THEAZO_AGENT_ID=agt_1", "THEAZO_SESSION_ID=ses_1")
		w.write(t, 100)
		w.end(t)
		all := sink.await(t, "the end", isExited)
		checkBytes(t, all, w.want)
		started, exited := all.Events[0], all.Events[len(all.Events)-1]
		if len(all.Events) != 2 || started.Type != telemetry.ExecStarted || started.Attributes["execId"] == "" || !strings.Contains(started.Attributes["command"], os.Args[0]) {
			t.Errorf("events %+v", all.Events)
		}
		if exited.ExitCode == nil || *exited.ExitCode != 7 || exited.Reason != "error" || exited.Attributes["durationMs"] == "" || exited.Agent != "agt_1" {
			t.Errorf("exited %+v", exited)
		}
		for _, l := range all.Lines {
			if !l.KeepRaw || !strings.Contains(string(l.Metadata), started.Attributes["execId"]) || len(l.Text) > maxLine || !plain(l.Text) && len(l.Text) > maxRawLine {
				t.Fatalf("a line of %d bytes, %+v", len(l.Text), l.Metadata)
			}
		}
		if err := e.stop(); err != nil {
			t.Error(err)
		}
	}
}

// Gaps go ahead of everybody's lines: a sandbox cannot make them faster than its
// rate, whatever offsets it names, and what it said before counts all the same.
func TestAnExecSessionOfGapsIsHeldToTheRate(t *testing.T) {
	sink := newKeeper()
	key, to := Key{1}, target("agt_1", "ses_1")
	e := start(t, Config{Key: key, Quota: Quota{Records: 2}}, sink)
	token, err := key.Token(to, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	hello := execstream.Hello{ID: "x1", StartedAt: time.Now()}
	body := execstream.AppendFrame([]byte(execstream.Magic), execstream.TypeHello, hello.AppendJSON(nil))
	for i := range int64(2000) {
		body = execstream.AppendData(body, execstream.TypeStdout, 10*(i+1), time.Now(), []byte("a\n"))
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, e.url+"/t/"+token+execstream.Path, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, answer.Body) // until it hangs up
	_ = answer.Body.Close()
	http.DefaultClient.CloseIdleConnections()
	all := sink.all()
	if n := len(all.Gaps); n < 2*burstSeconds || n > 1000 || len(all.Lines) != n {
		t.Errorf("%d gaps and %d lines", n, len(all.Lines))
	}
	for i, g := range all.Gaps {
		if i == 0 && g.Bytes != 10 || i > 0 && g.Bytes != 8 {
			t.Fatalf("gap %d of %d bytes", i, g.Bytes)
		}
	}
}

func TestASessionGoesOnOverRestartsAndKills(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	moments := rand.New(rand.NewPCG(seed, 3))
	sink := newKeeper()
	sink.commits = true
	socket := filepath.Join(t.TempDir(), "x", "s")
	e := execEndpoint(t, sink, socket)
	w := wrap(t, "unix://"+socket, seed, 300)
	for life := range 8 {
		w.write(t, 20)
		before := len(w.want[0]) + len(w.want[1])
		if moments.IntN(2) == 0 { // most of it is there, or whatever is
			sink.await(t, "most bytes", func(b source.Batch) bool {
				s := bytesOf(b.Lines)
				return len(s[0])+len(s[1]) >= before*3/4
			})
		}
		if moments.IntN(2) == 0 {
			sink.commit()
		}
		w.write(t, 5)
		if err := e.stop(); err != nil {
			t.Fatal(err)
		}
		if life%2 == 1 {
			sink.rollback() // killed: what was not committed never was
		} else {
			sink.commit()
		}
		e = execEndpoint(t, sink, socket)
	}
	w.write(t, 10)
	committing, stop := context.WithCancel(t.Context())
	defer stop()
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for committing.Err() == nil {
			sink.commit()
			<-tick.C
		}
	}()
	w.end(t)
	stop()
	<-done
	all := sink.await(t, "the end", isExited)
	checkBytes(t, all, w.want)
	if len(all.Events) != 2 {
		t.Errorf("events %+v", all.Events)
	}
}

func TestWhatDoesNotFitIsDroppedAndTold(t *testing.T) {
	sink := newKeeper()
	sink.gate = make(chan struct{})
	e := execEndpoint(t, sink, filepath.Join(t.TempDir(), "x", "s"))
	w := wrap(t, "unix://"+e.socket, 9, 100<<10)
	w.write(t, 40) // 5 MB, and nothing takes them
	deadline := time.After(patience)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	_ = w.in.Close()
	go func() { // the command ends although the sink takes nothing; agentd-exec then waits for it
		defer close(sink.gate)
		for {
			if _, err := os.Stat(fmt.Sprintf("/proc/%d/task/%d/children", w.Process.Pid, w.Process.Pid)); err == nil && !hasChildren(w.Process.Pid) {
				return
			}
			select {
			case <-tick.C:
			case <-deadline:
				return
			}
		}
	}()
	w.end(t)
	all := sink.await(t, "the end", isExited)
	got, lost := bytesOf(all.Lines), int64(0)
	for _, g := range all.Gaps {
		if g.Reason != telemetry.GapRefused || g.Agent != "agt_1" {
			t.Errorf("%+v", g)
		}
		lost += g.Bytes
	}
	arrived, written := int64(len(got[0])+len(got[1])), int64(len(w.want[0])+len(w.want[1]))
	if lost == 0 || arrived+lost != written {
		t.Errorf("%d bytes arrived, gaps tell of %d, %d were written", arrived, lost, written)
	}
}

func TestASessionThatIsCutOffIsTold(t *testing.T) {
	sink := newKeeper()
	e := execEndpoint(t, sink, filepath.Join(t.TempDir(), "x", "s"))
	w := wrap(t, "unix://"+e.socket, 5, 100)
	w.write(t, 3)
	sink.await(t, "some bytes", func(b source.Batch) bool { return len(b.Lines) > 0 })
	_ = w.Process.Kill()
	_ = w.in.Close()
	_ = w.Wait()
	if err := e.stop(); err != nil {
		t.Fatal(err)
	}
	all := newSessions(sink.resume(), e.metrics) // as the next process knows it
	gone := source.Positions{}
	if told := all.forget(time.Now().Add(abandonedAfter-time.Minute), gone); len(told) != 0 || len(gone) != 0 {
		t.Fatalf("too early: %+v %s", told, gone)
	}
	told := all.forget(time.Now().Add(abandonedAfter+time.Minute), gone)
	if len(told) != 1 || len(told[0].Gaps) != 1 || told[0].Gaps[0].Agent != "agt_1" || len(told[0].Positions) != 1 || len(gone) != 0 || len(all.of) != 0 || len(all.known) != 0 {
		t.Fatalf("%+v %s", told, gone)
	}
	if ev := told[0].Events[0]; ev.Type != telemetry.ExecExited || !ev.Inferred || ev.Attributes["execId"] != sink.all().Events[0].Attributes["execId"] {
		t.Errorf("%+v", ev)
	}
}

func hasChildren(pid int) bool {
	list, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, f := range list {
		if b, err := os.ReadFile(f); err == nil && len(bytes.TrimSpace(b)) > 0 {
			return true
		}
	}
	return false
}

func TestExecRefusesWhatIsNoSession(t *testing.T) {
	e := bound(t, target("agt_1", "ses_1"))
	hello := func(text string) string {
		return execstream.Magic + string(execstream.AppendFrame(nil, execstream.TypeHello, []byte(text)))
	}
	for body, status := range map[string]int{
		"": 400, "THZEXEC9": 400, execstream.Magic: 400, execstream.Magic + "H\xff\xff\xff\xff": 400, hello(`{`): 400, hello(`{}`): 422, hello(`{"execId":"a b"}`): 422,
		hello(`{"execId":"x","agentId":"agt_2"}`): 403, hello(`{"execId":"x","sessionId":"ses_2"}`): 403,
	} {
		if r := e.post(t, "/v1/sandbox/exec", body); r.status != status {
			t.Errorf("%q: %+v", body, r)
		}
	}
	// What comes after a good beginning ends the connection, and nothing else.
	for _, body := range []string{"1\x00\x00\x00\x01x", "1\x00\x00\x00\x10\xff\xff\xff\xff\xff\xff\xff\xffxxxxxxxx", "X\x00\x00\x00\x01{", "?\xff\xff\xff\xff", "1\x00\x00\x00"} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, e.url+"/v1/sandbox/exec", strings.NewReader(hello(`{"execId":"bad"}`)+body))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			continue
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
	}
	http.DefaultClient.CloseIdleConnections()
	if r := e.post(t, "/v1/sandbox/log", `{"message":"m"}`); r.status != 202 {
		t.Errorf("afterwards: %+v", r)
	}
}

func FuzzJoiner(f *testing.F) {
	f.Add([]byte("a\r\nb\x1b[0m\n\xff"), uint8(3))
	f.Add(bytes.Repeat([]byte{'x', 0x1b}, maxLine), uint8(255))
	f.Fuzz(func(t *testing.T, text []byte, step uint8) {
		j := joiner{stream: telemetry.Stdout}
		var lines []source.Line
		for rest := text; len(rest) > 0; {
			n := min(len(rest), int(step)*int(step)+1)
			lines = j.add(lines, time.Unix(1, 0), rest[:n])
			rest = rest[n:]
		}
		lines = j.flush(lines, false)
		if got := bytesOf(lines)[0]; !bytes.Equal(got, text) || j.told != int64(len(text)) {
			t.Fatalf("%q became %q (%d)", text, got, j.told)
		}
	})
}
