package sink_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/theazo/observability/aggregator/ingest/ingesttest"
	"github.com/theazo/observability/shared/frame"
	"github.com/theazo/observability/shared/segment"
	"github.com/theazo/observability/shared/telemetry"
	"github.com/theazo/observability/test/sink"
)

func received(t *testing.T, first uint64, messages ...string) *frame.Received {
	t.Helper()
	body := ingesttest.Segment(messages...)
	s, err := segment.Parse(body)
	if err != nil {
		t.Fatal(err)
	}
	return &frame.Received{
		Frame:      frame.Frame{Header: frame.Header{Lane: telemetry.LaneLogs, Epoch: 1, First: first, Count: uint32(len(messages))}, Body: body}, //nolint:gosec // a few
		ReceivedAt: time.Unix(100, 5000), Segment: s,
	}
}

func commit(t *testing.T, c *sink.Counter, frames ...*frame.Received) []frame.Outcome {
	t.Helper()
	outcomes, _, err := c.Commit(context.Background(), frames)
	if err != nil {
		t.Fatal(err)
	}
	return outcomes
}

func line(file, n int) string { return fmt.Sprintf("#i%03ds%09d some text", file, n) }

func TestWhatIsMissingAndWhatCameTwice(t *testing.T) {
	c := sink.NewCounter()
	commit(t, c, received(t, 1, line(0, 0), line(0, 1), line(2, 64), "no number"))
	o := commit(t, c,
		received(t, 1, line(0, 0), line(0, 1), line(2, 64), "no number"), // an acknowledgement was lost
		received(t, 9, line(0, 5)),                                       // ahead of its turn
		received(t, 5, line(0, 1)))                                       // the same line as another record
	if o[0].Verdict != frame.Duplicate || o[1].Verdict != frame.OutOfOrder || o[1].Next != 5 || o[2].Verdict != frame.Committed {
		t.Fatalf("%+v", o)
	}
	s := c.Stats()
	if s.Unique != 3 || s.Repeated != 1 || s.Other != 1 || s.Text != int64(3*len(line(0, 0))) || s.Resent != 4 || s.Frames != 2 {
		t.Fatalf("%+v", s)
	}
	for _, test := range []struct {
		n    []int64
		want int64
	}{{[]int64{2, 0, 0}, 0}, {[]int64{3, 0, 0}, 1}, {[]int64{2, 0, 65}, 64}, {[]int64{2, 0, 64}, 64}, {[]int64{2, 7}, 7}, {[]int64{1}, 0}} {
		if got := c.Missing(test.n); got != test.want {
			t.Errorf("of %v %d are missing, not %d", test.n, got, test.want)
		}
	}
}

func TestLatenciesComeFromTheLine(t *testing.T) {
	c := sink.NewCounter()
	commit(t, c, received(t, 1,
		fmt.Sprintf("#i001s000000000 t=%019d text", time.Unix(100, 2000).UnixNano()), fmt.Sprintf("#i001s000000001 t=%019d text", time.Unix(100, 4000).UnixNano()), line(0, 0)))
	if l := c.Latencies(); len(l) != 2 || l[0] != 1000 || l[1] != 3000 {
		t.Fatal(l)
	}
}
