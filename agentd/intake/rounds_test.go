package intake

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/theazo/observability/agentd/source"
	"github.com/theazo/observability/shared/telemetry"
)

func TestARoundIsOneCutAtItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := &memory{}
		in, _ := start(t, Config{MaxDelay: 25 * time.Millisecond}, q)
		rounds, over := source.InRounds(in.Sink("s"))
		wait := func(d time.Duration) { // in the bubble's own time
			<-time.After(d)
			synctest.Wait()
		}
		is := func(n, lines int, why string) {
			t.Helper()
			if all, _ := q.all(); q.count() != n || len(all) != lines {
				t.Fatalf("%s: %d cuts of %d lines, want %d of %d", why, q.count(), len(all), n, lines)
			}
		}
		wait(time.Second)
		emit(t, rounds, batchOf("one"))
		emit(t, rounds, batchOf("two"))
		synctest.Wait()
		is(0, 0, "a round goes on")
		over()
		synctest.Wait()
		is(1, 2, "a round is over")

		emit(t, rounds, batchOf("soon after"))
		over()
		synctest.Wait()
		is(1, 2, "the last cut was just now")
		wait(18 * time.Millisecond)
		is(1, 2, "the last cut was just now, still")
		wait(time.Millisecond)
		is(2, 3, "after most of the delay")

		wait(time.Second)
		emit(t, rounds, batchOf("first"))
		wait(gather + time.Millisecond)
		emit(t, rounds, batchOf("more, of a long round"))
		synctest.Wait()
		is(3, 5, "a long round")
		over()

		wait(time.Second)
		over() // of a round without anything
		emit(t, in.Sink("other"), batchOf("a lone line"))
		synctest.Wait()
		is(3, 5, "a line that may not be alone")
		wait(gather)
		is(4, 6, "a lone line")

		wait(2 * roundWait)
		emit(t, rounds, batchOf("of a source that hangs"))
		wait(roundWait)
		is(5, 7, "a round without an end")

		b := &source.Batch{Target: target}
		b.Events = []telemetry.Event{{Timestamp: noon, Type: telemetry.SandboxExited}}
		wait(time.Second)
		emit(t, rounds, b)
		over()
		synctest.Wait()
		if got := q.records(); len(got.Events) != 1 {
			t.Fatal("the exit of a sandbox waits after its round")
		}
	})
}

// Between two rounds nothing wakes Run: each would cost a turn of a processor.
func TestAPlanIsNotMadeAnewForEveryBatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := New(Config{}, &memory{}, nil, nil)
		defer in.timer.Stop()
		in.mu.Lock()
		in.logs.collecting.scope(telemetry.Scope{})
		in.logs.collecting.began, in.logs.last = time.Now(), time.Now()
		in.plan(roundWait)
		at := in.looksAt
		<-time.After(time.Millisecond)
		in.plan(roundWait)
		if in.looksAt != at || time.Until(at) < roundWait/2 {
			t.Errorf("planned for %s, then for %s", at, in.looksAt)
		}
		in.plan(0)
		if !in.looksAt.Before(at) {
			t.Error("what is due sooner waits for what is due later")
		}
		in.mu.Unlock()
	})
}
