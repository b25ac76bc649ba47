package live_test

import (
	"context"
	"slices"
	"testing"

	"github.com/theazo/observability/aggregator/live"
	"github.com/theazo/observability/aggregator/live/livetest"
	"github.com/theazo/observability/shared/frame"
	"github.com/theazo/observability/shared/stream"
	"github.com/theazo/observability/shared/telemetry"
)

// erasedLog is a log in which every second part holds nothing any more.
type erasedLog struct{ *livetest.Log }

func (l erasedLog) ReadStream(ctx context.Context, scope telemetry.Scope, after int64, limit int) ([]*frame.Published, error) {
	list, err := l.Log.ReadStream(ctx, scope, after, limit)
	shown := make([]*frame.Published, len(list))
	for i, p := range list {
		if shown[i] = p; p.Position%20 > 10 {
			shown[i] = &frame.Published{Scope: p.Scope, Position: p.Position, Absent: int64(p.Count())}
		}
	}
	return shown, err
}

// Positions that hold nothing are passed by readers of the past and of what
// comes, and nobody is told that he missed something.
func TestPositionsThatHoldNothingAreNothingMissed(t *testing.T) {
	log := erasedLog{&livetest.Log{}}
	h := newHub(t, log, live.Options{})
	var want []int64
	commit := func() *frame.Published {
		p := log.Commit(scope, "nod_1", lines(10, "agt_a", "line"), nil)
		if p.Position%20 <= 10 {
			for i := range 10 {
				want = append(want, p.Position+int64(i))
			}
		}
		return p
	}
	for range 7 {
		commit()
	}
	past, now := subscribe(t, h, telemetry.LogFilter{}, &stream.Cursor{}), subscribe(t, h, telemetry.LogFilter{}, nil)
	before := len(want)
	for range 3 {
		// A commit of what is erased is not published; the one after it is.
		commit()
		h.Publish([]*frame.Published{commit()})
	}
	for name, c := range map[string]struct {
		reader stream.Reader
		want   []int64
	}{"past": {past, want}, "now": {now, want[before:]}} {
		var s seen
		s.until(t, c.reader, func() bool { return len(s.positions) >= len(c.want) })
		if !slices.Equal(s.positions, c.want) || len(s.missed) > 0 {
			t.Errorf("%s: %v, missed %+v; want %v", name, s.positions, s.missed, c.want)
		}
	}
}
