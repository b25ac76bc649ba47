package link_test

import (
	"github.com/theazo/observability/shared/frame"
	"github.com/theazo/observability/shared/telemetry"
	"github.com/theazo/observability/test/feed"
)

// queue is a spool in memory.
type queue struct{ *feed.Queue }

func newQueue() *queue { return &queue{feed.NewQueue()} }

// put appends a frame of count records.
func (q *queue) put(org telemetry.OrgID, epoch uint64, lane telemetry.Lane, count int, body []byte) {
	q.Put(frame.Header{Org: org, Epoch: epoch, Lane: lane, Count: uint32(count), Class: telemetry.Normal}, body)
}

// left is the number of frames that are not acknowledged.
func (q *queue) left(org telemetry.OrgID) int { return q.Left(org) }
