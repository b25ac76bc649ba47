package frame_test

import (
	"testing"
	"time"

	"github.com/theazo/observability/shared/frame"
	"github.com/theazo/observability/shared/ids"
	"github.com/theazo/observability/shared/segment"
	"github.com/theazo/observability/shared/telemetry"
)

func TestEntriesOfAPublishedPartAreUniqueAndFindable(t *testing.T) {
	var w segment.Writer
	at := time.UnixMicro(1_700_000_000_123_456).UTC()
	for _, agent := range []telemetry.AgentID{"agt_a", "agt_b"} {
		e := telemetry.LogEntry{Timestamp: at, Message: "the same", Origin: telemetry.Origin{Agent: agent}}
		w.Append(&e)
	}
	s, err := segment.Parse(w.Encode(nil))
	if err != nil {
		t.Fatal(err)
	}
	part := segment.Part{Segment: s, Node: "nod_1", Epoch: 7, FirstSeq: 41}
	lines := s.Read()
	if err := lines.DecodeAll(); err != nil {
		t.Fatal(err)
	}
	c := frame.NewPublished(telemetry.Scope{Org: "org_a"}, 1000, at, &part, lines)
	if c.Next() != 1002 {
		t.Errorf("next is %d", c.Next())
	}
	var a, b telemetry.LogEntry
	c.Entry(0, &a)
	c.Entry(1, &b)
	if a.ID == b.ID || a.Seq != 41 || b.Seq != 42 || b.Position != 1001 || b.Node != "nod_1" {
		t.Fatalf("%+v\n%+v", a, b)
	}
	k, err := ids.ParseLog(string(b.ID))
	if err != nil || k.Seq != 42 || k.Agent != ids.AgentHash("agt_b") || !k.LogTime().Equal(at) {
		t.Fatalf("%+v %v", k, err)
	}
}
