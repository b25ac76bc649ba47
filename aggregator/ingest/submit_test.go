package ingest_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/theazo/observability/aggregator/ingest"
	"github.com/theazo/observability/shared/frame"
	"github.com/theazo/observability/shared/segment"
	"github.com/theazo/observability/shared/telemetry"
)

// pushed is a frame of lines that came by no stream.
func pushed(org telemetry.OrgID, epoch, first uint64, messages ...string) *frame.Received {
	var w segment.Writer
	for _, m := range messages {
		w.Append(&telemetry.LogEntry{Timestamp: time.UnixMicro(1_700_000_000_000_000), Message: m, Origin: telemetry.Origin{Agent: "agt_a"}})
	}
	f := &frame.Received{Node: "api"}
	f.Org, f.Epoch, f.First, f.Count, f.Body = org, epoch, first, uint32(len(messages)), w.Encode(nil)
	return f
}

func submit(t *testing.T, b *bench, frames ...*frame.Received) ([]frame.Outcome, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	return b.server.Submit(ctx, frames)
}

func TestSubmittedFramesAreCommittedOnce(t *testing.T) {
	b := start(t, nil, "org_a")
	frames := func() []*frame.Received {
		return []*frame.Received{pushed("org_a", 7, 1, "one", "two"), pushed("org_a", 7, 3, "three")}
	}
	for _, want := range []frame.Verdict{frame.Committed, frame.Duplicate} {
		outcomes, err := submit(t, b, frames()...)
		if err != nil || len(outcomes) != 2 || outcomes[0].Verdict != want || outcomes[1].Verdict != want {
			t.Errorf("%v: %v %v", want, outcomes, err)
		}
	}
	if n := len(b.store.Committed()); n != 2 {
		t.Errorf("%d frames are committed", n)
	}
}

// Each request leaves something, however small it is: that is rationed, for each
// organisation alone.
func TestRequestsAreRationed(t *testing.T) {
	b := start(t, nil, "org_a", "org_b")
	const most = 100_000
	n := 0
	for n < most && b.server.Admit("org_a") == nil {
		n++
	}
	if err := b.server.Admit("org_a"); n == most || telemetry.CodeOf(err) != telemetry.RateLimited {
		t.Errorf("after %d requests: %v", n, err)
	}
	if err := b.server.Admit("org_b"); err != nil {
		t.Error(err)
	}
}

func TestFramesWithoutAnEpochAreNumberedInOrderWhoeverSendsThem(t *testing.T) {
	b := start(t, nil, "org_a", "org_b")
	var senders sync.WaitGroup
	for i := range 20 {
		senders.Go(func() {
			org := telemetry.OrgID([]string{"org_a", "org_b"}[i%2])
			outcomes, err := submit(t, b, pushed(org, 0, 0, fmt.Sprint(i, "a"), fmt.Sprint(i, "b")), pushed(org, 0, 0, fmt.Sprint(i, "c")))
			if err != nil || outcomes[0].Verdict != frame.Committed || outcomes[1].Verdict != frame.Committed {
				t.Errorf("%v %v", outcomes, err)
			}
		})
	}
	senders.Wait()
	next, epochs := map[telemetry.OrgID]uint64{}, map[uint64]bool{}
	for _, f := range b.store.Committed() {
		if f.First != next[f.Org]+1 {
			t.Errorf("%s follows %d", f, next[f.Org])
		}
		next[f.Org], epochs[f.Epoch] = f.Last(), true
	}
	if next["org_a"] != 30 || next["org_b"] != 30 || len(epochs) != 2 {
		t.Errorf("%v in %d epochs", next, len(epochs))
	}
}

func TestARefusedFrameDoesNotHoldUpThoseAfterIt(t *testing.T) {
	b := start(t, nil, "org_a")
	// The store's trouble with one request is nobody else's.
	b.store.Before(func(frames []*frame.Received) error {
		for _, f := range frames {
			if f.Count == 3 {
				return errors.New("something unforeseen")
			}
		}
		return nil
	})
	if _, err := submit(t, b, pushed("org_a", 0, 0, "first")); err != nil {
		t.Fatal(err)
	}
	var senders sync.WaitGroup
	for i := range 10 {
		senders.Go(func() {
			if i == 3 {
				if _, err := submit(t, b, pushed("org_a", 0, 0, "x", "y", "z")); telemetry.CodeOf(err) != telemetry.Unavailable {
					t.Errorf("the refused one: %v", err)
				}
				return
			}
			if outcomes, err := submit(t, b, pushed("org_a", 0, 0, strconv.Itoa(i))); err != nil || outcomes[0].Verdict != frame.Committed {
				t.Errorf("%d: %v %v", i, outcomes, err)
			}
		})
	}
	senders.Wait()
	seen := map[string]int{}
	for _, f := range b.store.Committed() {
		lines := f.Segment.Read()
		if err := lines.DecodeAll(); err != nil {
			t.Fatal(err)
		}
		seen[string(lines.Message(0))]++
	}
	for i := range 10 {
		if want := map[bool]int{true: 0, false: 1}[i == 3]; seen[strconv.Itoa(i)] != want {
			t.Errorf("line %d is there %d times", i, seen[strconv.Itoa(i)])
		}
	}
}

func TestSubmittersAreToldWhyNothingIsTaken(t *testing.T) {
	b := start(t, func(c *ingest.Config) { c.Quota.RecordsPerSecond, c.OrgMemory = 1, 16<<10 }, "org_a", "org_b")
	bad := pushed("org_b", 0, 0, "x")
	bad.Body = bad.Body[:len(bad.Body)-1]
	if _, err := submit(t, b, bad); telemetry.CodeOf(err) != telemetry.Unprocessable {
		t.Errorf("a frame that cannot be read: %v", err)
	}
	if _, err := submit(t, b, pushed("org_a", 0, 0, "one", "two", "three")); err != nil {
		t.Errorf("the first: %v", err)
	}
	_, err := submit(t, b, pushed("org_a", 0, 0, "four"))
	if f, ok := errors.AsType[*telemetry.Failure](err); !ok || f.Code != telemetry.RateLimited || f.RetryAfter <= 0 {
		t.Errorf("over the quota: %v", err)
	}
	var many []string
	for range 50 {
		many = append(many, fmt.Sprintf("%x", time.Now().UnixNano()))
	}
	var frames []*frame.Received
	for range 20 {
		frames = append(frames, pushed("org_c", 0, 0, many...))
	}
	if _, err := submit(t, b, frames...); telemetry.CodeOf(err) != telemetry.Unavailable {
		t.Errorf("more than may wait: %v", err)
	}
}

func TestASubmitterWhoDoesNotWaitIsToldThatNothingIsKnown(t *testing.T) {
	b := start(t, nil, "org_a")
	release := make(chan struct{})
	b.store.Before(func([]*frame.Received) error { <-release; return nil })
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := b.server.Submit(ctx, []*frame.Received{pushed("org_a", 9, 1, "x")}); telemetry.CodeOf(err) != telemetry.Unavailable {
		t.Errorf("%v", err)
	}
	close(release)
	if outcomes, err := submit(t, b, pushed("org_a", 9, 1, "x")); err != nil || outcomes[0].Verdict != frame.Duplicate {
		t.Errorf("again: %v %v", outcomes, err)
	}
	if err := b.stop(); err != nil {
		t.Error(err)
	}
	if _, err := submit(t, b, pushed("org_a", 9, 2, "y")); telemetry.CodeOf(err) != telemetry.Unavailable {
		t.Errorf("after the end: %v", err)
	}
}
