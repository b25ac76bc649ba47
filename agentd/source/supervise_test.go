package source_test

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/go-hclog"

	"github.com/theazo/observability/agentd/source"
)

type scripted struct {
	runs []source.Positions // what each run was given
	run  func(ctx context.Context, n int, to source.Sink) error
}

func (s *scripted) Name() string { return "scripted" }

func (s *scripted) Run(ctx context.Context, resume source.Positions, to source.Sink) error {
	s.runs = append(s.runs, resume)
	return s.run(ctx, len(s.runs), to)
}

type emit func(b *source.Batch) error

func (f emit) Emit(_ context.Context, b *source.Batch) error { return f(b) }

func TestAFailingSourceStartsAgainWhereTheSinkStands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		src := &scripted{run: func(ctx context.Context, n int, to source.Sink) error {
			switch n {
			case 1:
				err := to.Emit(ctx, &source.Batch{Positions: source.Positions{"a": json.RawMessage(`2`), "b": json.RawMessage(`null`)}})
				return errors.Join(err, errors.New("first failure"))
			case 2:
				panic("second failure")
			case 3:
				if err := to.Emit(ctx, &source.Batch{Positions: source.Positions{"a": json.RawMessage(`3`)}}); err == nil {
					t.Error("the sink's refusal was lost")
				}
				return nil // though nobody asked it to stop
			default:
				cancel()
				return ctx.Err()
			}
		}}
		durable := source.Positions{"a": json.RawMessage(`1`), "b": json.RawMessage(`1`)}
		accepted := maps.Clone(durable)
		sink := emit(func(b *source.Batch) error {
			if string(b.Positions["a"]) == "3" {
				return errors.New("closed")
			}
			accepted.Apply(b.Positions)
			return nil
		})
		start := time.Now()
		source.Supervise(ctx, src, func() source.Positions { return maps.Clone(accepted) }, sink, hclog.NewNullLogger())
		after := source.Positions{"a": json.RawMessage(`2`)}
		if diff := cmp.Diff([]source.Positions{durable, after, after, after}, src.runs); diff != "" {
			t.Errorf("positions of the runs (-want +got):\n%s", diff)
		}
		if time.Since(start) < 3*time.Second {
			t.Errorf("three restarts took only %s: no pause", time.Since(start))
		}
	})
}

func TestSuperviseEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		src := &scripted{run: func(ctx context.Context, _ int, _ source.Sink) error {
			<-ctx.Done()
			return nil
		}}
		source.Supervise(ctx, src, func() source.Positions { return nil }, nil, hclog.NewNullLogger())
		if len(src.runs) != 1 {
			t.Errorf("ran %d times", len(src.runs))
		}
	})
}
