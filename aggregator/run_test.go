package aggregator

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestManyWhoAskForReadinessShareAnAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int32
		var away atomic.Bool
		a := &aggregator{}
		a.checks.Add("database", func(ctx context.Context) error {
			asked.Add(1)
			if away.Load() {
				return errors.New("it is away")
			}
			return ctx.Err()
		})
		gone, leave := context.WithCancel(t.Context())
		leave()
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() {
				if err := a.ready(gone); err != nil { // one who has left spoils nobody's answer
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if n := asked.Load(); n != 1 {
			t.Errorf("the database was asked %d times", n)
		}
		away.Store(true)
		timer := time.NewTimer(readyFor)
		<-timer.C
		if a.ready(t.Context()) == nil {
			t.Error("ready without a database")
		}
	})
}
