package uplink

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/theazo/observability/shared/frame"
	"github.com/theazo/observability/shared/telemetry"
)

func testFrame(org telemetry.OrgID, first uint64, size int) *frame.Frame {
	return &frame.Frame{Body: make([]byte, size), Header: frame.Header{Org: org, Epoch: 1, First: first, Count: 1}}
}

// Whatever is sent, acknowledged, throttled and rewound, the window counts
// exactly what is on its way, and an organisation with nothing on its way may go on.
func TestWindowCountsWhatIsOnItsWay(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := newWindow()
		w.reset(10_000)
		orgs := []telemetry.OrgID{"a", "b", "c"}
		type sent struct {
			seq  uint64
			size int
		}
		model := map[telemetry.OrgID][]sent{}
		next := map[telemetry.OrgID]uint64{"a": 1, "b": 1, "c": 1}
		acked := map[telemetry.OrgID]uint64{}
		for range rapid.IntRange(1, 100).Draw(rt, "steps") {
			org := rapid.SampledFrom(orgs).Draw(rt, "org")
			k := streamKey{org: org, epoch: 1}
			keep := func(match func(sent) bool) {
				var kept []sent
				for _, s := range model[org] {
					if match(s) {
						kept = append(kept, s)
					}
				}
				model[org] = kept
			}
			switch rapid.IntRange(0, 5).Draw(rt, "step") {
			case 0, 1, 2:
				size := rapid.IntRange(0, 3000).Draw(rt, "size")
				w.add(testFrame(org, next[org], size))
				model[org] = append(model[org], sent{next[org], size})
				next[org]++
			case 3:
				last := rapid.Uint64Range(0, next[org]).Draw(rt, "last")
				w.ack(k, last)
				acked[org] = max(acked[org], last)
				keep(func(s sent) bool { return s.seq > last })
			case 4:
				from := rapid.Uint64Range(1, next[org]).Draw(rt, "from")
				w.rewind(k, from)
				acked[org] = min(acked[org], from-1)
				keep(func(s sent) bool { return s.seq < from })
				next[org] = min(next[org], from)
			case 5:
				got := w.throttle(org, time.Hour, "no")
				if len(model[org]) > 0 {
					lowest := model[org][0].seq
					for _, s := range model[org] {
						lowest = min(lowest, s.seq)
					}
					lowest = max(lowest, acked[org]+1)
					if got[k] != lowest {
						rt.Fatalf("send again from %d, want %d", got[k], lowest)
					}
					next[org] = lowest
				} else if len(got) != 0 {
					rt.Fatalf("nothing is on its way, send again %v", got)
				}
				model[org] = nil
				if !w.skip(org) {
					rt.Fatal("a throttled organisation is not skipped")
				}
				w.mu.Lock()
				delete(w.throttled, org)
				w.mu.Unlock()
			}
			total, count := int64(0), 0
			for o, list := range model {
				sum := int64(0)
				for _, s := range list {
					sum += int64(s.size)
				}
				total += sum
				count += len(list)
				if w.byOrg[o] != sum {
					rt.Fatalf("%s has %d on its way, counted %d", o, sum, w.byOrg[o])
				}
				if sum == 0 && w.skip(o) {
					rt.Fatalf("%s has nothing on its way and has to wait", o)
				}
			}
			if frames, bytes, _ := w.describe(); frames != count || bytes != total {
				rt.Fatalf("%d frames with %d bytes are on their way, counted %d with %d", count, total, frames, bytes)
			}
		}
	})
}

func TestNoOrganisationFillsTheWindow(t *testing.T) {
	for busy := 1; busy <= 4; busy++ {
		w := newWindow()
		w.reset(1_000_000)
		for sent := true; sent; {
			sent = false
			for i := range busy {
				org := telemetry.OrgID(fmt.Sprint("org_", i))
				if !w.skip(org) {
					w.add(testFrame(org, 1, 1000))
					sent = true
				}
			}
		}
		want := int64(1_000_000 / (busy + 1))
		for org, n := range w.byOrg {
			if n < want-2000 || n > want+2000 {
				t.Errorf("%d busy organisations: %s has %d bytes of the window, want about %d", busy, org, n, want)
			}
		}
		if w.skip("org_new") {
			t.Errorf("%d busy organisations leave no room for another", busy)
		}
		if !w.ack(streamKey{org: "org_0", epoch: 1}, 1) {
			t.Error("nobody is told that an organisation that was held back may have room")
		}
		if w.ack(streamKey{org: "org_0", epoch: 1}, 1) {
			t.Error("somebody is told although nobody was held back since")
		}
	}
}

func TestWaitingForRoomAndForAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWindow()
		w.reset(1000)
		if w.silent() != 0 || w.wait(t.Context()) != nil {
			t.Fatal("an empty window waits")
		}
		w.add(testFrame("a", 1, 1000))
		waited := make(chan error, 1)
		go func() { waited <- w.wait(t.Context()) }()
		timer := time.NewTimer(time.Minute)
		<-timer.C
		select {
		case err := <-waited:
			t.Fatalf("a full window has room: %v", err)
		default:
		}
		if w.silent() != time.Minute {
			t.Fatalf("silent for %s", w.silent())
		}
		w.ack(streamKey{org: "a", epoch: 1}, 1)
		if err := <-waited; err != nil || w.silent() != 0 {
			t.Fatal(err)
		}
		w.add(testFrame("a", 2, 1000))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := w.wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		w.throttle("a", time.Minute, "quota")
		if _, _, waiting := w.describe(); len(waiting) != 1 || !w.skip("a") || w.skip("b") {
			t.Fatalf("%+v", waiting)
		}
		timer.Reset(time.Minute)
		<-timer.C
		if _, _, waiting := w.describe(); len(waiting) != 0 || w.skip("a") {
			t.Fatalf("%+v", waiting)
		}
	})
}

func TestAThrottleRewindsToNothingAcknowledged(t *testing.T) {
	w := newWindow()
	w.reset(1 << 20)
	send := func(first uint64) {
		w.add(&frame.Frame{Header: frame.Header{Org: "org_a", Epoch: 1, First: first, Count: 10}, Body: []byte("x")})
	}
	k := streamKey{org: "org_a", epoch: 1}
	send(1)
	w.ack(k, 20) // the first copies of two frames
	send(11)     // the second copy of the later one, which was on its way here
	send(21)
	if from := w.throttle("org_a", time.Second, "full"); from[k] != 21 {
		t.Fatalf("sent again from %d, but everything to 20 is acknowledged", from[k])
	}
}
