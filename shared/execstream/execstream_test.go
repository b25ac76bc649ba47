package execstream_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/theazo/observability/shared/execstream"
)

func TestFramesSurviveTheirStream(t *testing.T) {
	at := time.Date(2026, 11, 22, 7, 0, 0, 123000, time.UTC)
	var b []byte
	b = execstream.AppendFrame(b, execstream.TypeHello, []byte(`{}`))
	b = execstream.AppendData(b, execstream.TypeStderr, 7, at, []byte("x\x00\xff"))
	b = execstream.AppendAck(b, 3, 4)
	r := bytes.NewReader(b)
	if kind, p, err := execstream.ReadFrame(r, nil); kind != execstream.TypeHello || string(p) != "{}" || err != nil {
		t.Fatalf("%c %q %v", kind, p, err)
	}
	kind, p, err := execstream.ReadFrame(r, nil)
	d, dataErr := execstream.ParseData(p)
	if kind != execstream.TypeStderr || err != nil || dataErr != nil || d.Offset != 7 || !d.At.Equal(at) || string(d.Bytes) != "x\x00\xff" {
		t.Fatalf("%c %+v %v %v", kind, d, err, dataErr)
	}
	_, p, err = execstream.ReadFrame(r, nil)
	if out, e, ackErr := execstream.ParseAck(p); out != 3 || e != 4 || err != nil || ackErr != nil {
		t.Fatalf("%d %d %v %v", out, e, err, ackErr)
	}
	if _, _, err = execstream.ReadFrame(r, nil); !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
}

func FuzzReadFrame(f *testing.F) {
	f.Add(execstream.AppendData(nil, execstream.TypeStdout, 1, time.Unix(1, 0), []byte("abc")))
	f.Add([]byte{'1', 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		for {
			before := r.Len()
			_, p, err := execstream.ReadFrame(r, nil)
			if err != nil {
				if errors.Is(err, io.EOF) && before != 0 {
					t.Fatalf("%d bytes were taken for the end", before)
				}
				return
			}
			if len(p) > execstream.MaxPayload {
				t.Fatalf("a payload of %d bytes", len(p))
			}
			if d, err := execstream.ParseData(p); err == nil && d.Offset < 0 {
				t.Fatal("a negative offset")
			}
			_, _, _ = execstream.ParseAck(p)
		}
	})
}

// Fields are added to both or to none: JSON written by hand is what
// encoding/json reads back.
func TestJSONIsWhatTheStandardLibraryReads(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		at := time.UnixMicro(rapid.Int64Range(0, 1<<52).Draw(t, "at")).UTC()
		hello := execstream.Hello{
			ID: rapid.String().Draw(t, "id"), Command: rapid.SliceOfN(rapid.String(), 1, 5).Draw(t, "command"), Agent: rapid.String().Draw(t, "agent"),
			Session: rapid.String().Draw(t, "session"), TTY: rapid.Bool().Draw(t, "tty"), StartedAt: at,
		}
		exit := execstream.Exit{
			Code: rapid.Int().Draw(t, "code"), Signal: rapid.String().Draw(t, "signal"), DurationMS: rapid.Int64().Draw(t, "duration"), EndedAt: at,
			Stdout: rapid.Int64().Draw(t, "stdout"), Stderr: rapid.Int64().Draw(t, "stderr"),
		}
		var helloAgain execstream.Hello
		var exitAgain execstream.Exit
		if err := errors.Join(json.Unmarshal(hello.AppendJSON(nil), &helloAgain), json.Unmarshal(exit.AppendJSON(nil), &exitAgain)); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(hello, helloAgain) + cmp.Diff(exit, exitAgain); d != "" {
			t.Fatal(d)
		}
	})
	odd := execstream.Hello{Command: []string{"\xff\x00\u2028\x7f"}}
	var again execstream.Hello
	if err := json.Unmarshal(odd.AppendJSON(nil), &again); err != nil || again.Command[0] != "\ufffd\x00\u2028\x7f" {
		t.Errorf("%q %v", again.Command, err)
	}
}

// version1 is a stream as the first agentd-exec sends it; it lies in images
// that nobody rebuilds.
const version1 = "THZEXEC1" +
	"H\x00\x00\x00\x62" + `{"execId":"exec_1","command":["sh","-c","x"],"tty":true,"startedAt":"2026-11-22T07:00:00.000001Z"}` +
	"1\x00\x00\x00\x13" + "\x00\x00\x00\x00\x00\x00\x00\x05" + "\x00\x06\x60\xd8\x06\x96\x9c\x01" + "a\x00\xff" +
	"X\x00\x00\x00\x77" + `{"code":137,"signal":"SIGKILL","durationMs":12,"endedAt":"2026-11-22T07:00:00.012001Z","stdoutBytes":8,"stderrBytes":0}`

func TestVersion1StaysReadable(t *testing.T) {
	text, ok := strings.CutPrefix(version1, execstream.Magic)
	if !ok {
		t.Fatal("the magic changed")
	}
	r := strings.NewReader(text)
	at := time.Date(2026, 11, 22, 7, 0, 0, 1000, time.UTC)
	var hello execstream.Hello
	kind, p, err := execstream.ReadFrame(r, nil)
	if err = errors.Join(err, json.Unmarshal(p, &hello)); err != nil || kind != execstream.TypeHello || hello.ID != "exec_1" || len(hello.Command) != 3 || !hello.TTY || !hello.StartedAt.Equal(at) {
		t.Errorf("%c %+v %v", kind, hello, err)
	}
	kind, p, err = execstream.ReadFrame(r, nil)
	d, dataErr := execstream.ParseData(p)
	if err = errors.Join(err, dataErr); err != nil || kind != execstream.TypeStdout || d.Offset != 5 || !d.At.Equal(at) || string(d.Bytes) != "a\x00\xff" {
		t.Errorf("%c %+v %v", kind, d, err)
	}
	var exit execstream.Exit
	kind, p, err = execstream.ReadFrame(r, nil)
	if err = errors.Join(err, json.Unmarshal(p, &exit)); err != nil || kind != execstream.TypeExit || exit.Code != 137 || exit.Signal != "SIGKILL" || exit.DurationMS != 12 || exit.Stdout != 8 {
		t.Errorf("%c %+v %v", kind, exit, err)
	}
	again := execstream.AppendFrame([]byte(execstream.Magic), execstream.TypeHello, hello.AppendJSON(nil))
	again = execstream.AppendData(again, execstream.TypeStdout, 5, at, []byte("a\x00\xff"))
	if again = execstream.AppendFrame(again, execstream.TypeExit, exit.AppendJSON(nil)); string(again) != version1 {
		t.Errorf("it is written otherwise now, so it needs another version:\n%q\n%q", again, version1)
	}
}
