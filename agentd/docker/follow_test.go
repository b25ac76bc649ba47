package docker

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
	"time"
)

// frame is one frame of the engine's multiplexed answer.
func frame(stream byte, at time.Time, text string) []byte {
	payload := at.Format(time.RFC3339Nano) + " " + text
	head := []byte{stream, 0, 0, 0, 0, 0, 0, 0}
	binary.BigEndian.PutUint32(head[4:], uint32(len(payload)))
	return append(head, payload...)
}

// readAPI reads an answer to its end.
func readAPI(a *apiLog, answer []byte) (lines []string, err error) {
	a.rewind()
	in := bufio.NewReaderSize(bytes.NewReader(answer), 64<<10)
	for err == nil {
		a.block.reset()
		err = a.fill(in, &a.block)
		for _, l := range a.block.out.lines {
			lines = append(lines, fmt.Sprintf("%s %s", l.Stream, l.Text))
		}
	}
	return lines, err
}

// An answer that repeats what was read, with streams out of order, gives only
// what is new.
func TestAnAnswerThatRepeats(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	var answer []byte
	answer = append(answer, frame(1, at, "one\n")...)
	answer = append(answer, frame(1, at, "one again\n")...)
	answer = append(answer, frame(2, at.Add(-1), "earlier\n")...)
	answer = append(answer, frame(1, at.Add(2), strings.Repeat("x", pieceBytes))...)
	first := len(answer)
	answer = append(answer, frame(2, at.Add(1), "between\n")...)
	answer = append(answer, frame(1, at.Add(2), "end\n")...)
	answer = append(answer, frame(1, at.Add(2), "same time\n")...)

	a := &apiLog{}
	got, _ := readAPI(a, answer[:first])
	resumed := &apiLog{}
	resumed.resume(a.position())
	if from := resumed.from(); !from.Before(at.Add(-1)) {
		t.Errorf("asks from %v", from)
	}
	more, _ := readAPI(resumed, answer)
	got = append(got, more...)
	want := []string{
		"stdout one", "stdout one again", "stderr earlier",
		"stderr between", "stdout " + strings.Repeat("x", pieceBytes) + "end", "stdout same time",
	}
	if strings.Join(got, "|") != strings.Join(want, "|") {
		t.Errorf("got %.300q, want %.300q", got, want)
	}
}

// Whatever the engine answers, nothing panics and memory stays bounded.
func FuzzAnswer(f *testing.F) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	f.Add(append(frame(1, at, "one\n"), frame(2, at, "two")...), false)
	f.Add([]byte(at.Format(time.RFC3339Nano)+" terminal\r\n"), true)
	f.Add([]byte{1, 0, 0, 0, 255, 255, 255, 255}, false)
	f.Fuzz(func(t *testing.T, answer []byte, tty bool) {
		a := &apiLog{tty: tty}
		lines, err := readAPI(a, answer)
		if err == nil {
			t.Fatal("an answer has no end")
		}
		n := 0
		for _, l := range lines {
			n += len(l)
		}
		if n > len(answer)+len(lines)*len("stdout ") || cap(a.frame) > frameBytes {
			t.Fatalf("%d bytes became %d, with a frame of %d", len(answer), n, cap(a.frame))
		}
		_ = a.position()
	})
}
