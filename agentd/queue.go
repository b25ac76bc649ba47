package agentd

import (
	"context"

	"github.com/theazo/observability/agentd/spool"
	"github.com/theazo/observability/shared/frame"
	"github.com/theazo/observability/shared/telemetry"
)

// queue is the spool as intake and uplink see it: the spool knows bytes, they
// know frames.
type queue struct{ spool *spool.Spool }

// Append makes frames and positions durable in one step.
func (q queue) Append(frames []frame.Frame, positions map[string][]byte) error {
	drafts := make([]spool.Draft, len(frames))
	for i := range frames {
		f := &frames[i]
		drafts[i] = spool.Draft{
			Key:  spool.Key{Org: string(f.Org), Test: f.Env == telemetry.Test},
			Lane: uint8(f.Lane), Class: uint8(f.Class), Tombstone: f.Tombstone, Count: f.Count, Body: f.Body,
		}
	}
	return q.spool.Append(drafts, positions)
}

// Room waits until the spool's budget has room.
func (q queue) Room(ctx context.Context) error { return q.spool.Room(ctx) }

// Next returns the next unsent frame.
func (q queue) Next(ctx context.Context, skip func(telemetry.OrgID) bool) (frame.Frame, error) {
	f, err := q.spool.Next(ctx, func(org string) bool { return skip(telemetry.OrgID(org)) })
	if err != nil {
		return frame.Frame{}, err
	}
	out := frame.Frame{Body: f.Body, Header: frame.Header{
		Org: telemetry.OrgID(f.Org), Lane: telemetry.Lane(f.Lane), Class: telemetry.Class(f.Class),
		Tombstone: f.Tombstone, Epoch: f.Epoch, First: f.First, Count: f.Count,
	}}
	if f.Test {
		out.Env = telemetry.Test
	}
	return out, nil
}

func (q queue) Wake() { q.spool.Wake() }

func (q queue) Ack(org telemetry.OrgID, epoch uint64, lane telemetry.Lane, last uint64) error {
	return q.spool.Ack(string(org), epoch, uint8(lane), last)
}

func (q queue) Rewind(org telemetry.OrgID, epoch uint64, lane telemetry.Lane, next uint64) {
	q.spool.Rewind(string(org), epoch, uint8(lane), next)
}

func (q queue) Reset() { q.spool.Reset() }
