package live

import (
	"testing"

	"github.com/theazo/observability/shared/frame"
	"github.com/theazo/observability/shared/segment"
	"github.com/theazo/observability/shared/telemetry"
)

// Lines without text take memory too while they wait for a tailer.
func TestAnInboxOfEmptyLinesIsBounded(t *testing.T) {
	var w segment.Writer
	for range segment.MaxLines {
		w.Append(&telemetry.LogEntry{Origin: telemetry.Origin{Agent: "agt_a"}})
	}
	s, err := segment.Parse(w.Encode(nil))
	if err != nil {
		t.Fatal(err)
	}
	lines := s.Read()
	if err := lines.DecodeAll(); err != nil {
		t.Fatal(err)
	}
	waiting := &tailer{wake: make(chan struct{}, 1)}
	offered := 0
	for ; !waiting.overflow && offered < maxInboxParts; offered++ {
		waiting.offer(&frame.Published{Lines: lines})
	}
	if least := segment.MaxLines * (8 + 4); offered > maxInboxBytes/least+1 { // a time and an origin each
		t.Errorf("%d parts of %d lines wait", offered, segment.MaxLines)
	}
}
