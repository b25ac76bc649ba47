package live

import (
	"strings"
	"testing"
	"time"

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

// A thousand filters that all match must not hold a thousand copies.
func TestWhatIsCutForManyViewsIsBounded(t *testing.T) {
	var w segment.Writer
	for range 1000 {
		w.Append(&telemetry.LogEntry{Origin: telemetry.Origin{Agent: "agt_a"}, Message: strings.Repeat("x", 1000)})
	}
	s, err := segment.Parse(w.Encode(nil))
	if err != nil {
		t.Fatal(err)
	}
	lines := s.Read()
	if err := lines.DecodeAll(); err != nil {
		t.Fatal(err)
	}
	p := frame.NewPublished(telemetry.Scope{Org: "org_a"}, 1, time.Unix(1, 0), &segment.Part{Segment: s, Node: "nod_1", Epoch: 1, FirstSeq: 1}, lines)
	views := make([]candidate, 100_000)
	for i := range views {
		views[i] = candidate{all: true, view: newView(telemetry.LogFilter{Search: strings.Repeat("x", 1+i%500)})}
	}
	shared := newPart(p, 1)
	held := 0
	list := (&tailer{}).cutAll(views, shared)
	for _, c := range list {
		held += c.overhead()
	}
	if one := lines.Segment.Lines * recordSize; len(list) < 100 || held+shared.bytes > maxCutBytes+one {
		t.Errorf("%d views hold %d bytes, and %d together", len(list), held, shared.bytes)
	}
	if shared.bytes < s.RawBytes || shared.bytes > 2*s.RawBytes {
		t.Errorf("%d bytes of lines were encoded as %d", s.RawBytes, shared.bytes)
	}
}
