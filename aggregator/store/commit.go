package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/theazo/observability/shared/frame"
	"github.com/theazo/observability/shared/telemetry"
)

// commitAttempts bounds how often one Commit meets a race that it can win by
// starting again: another aggregator made the same new mark, or the database
// broke a deadlock.
const commitAttempts = 5

// Commit commits whole frames, of many organisations and nodes, in one
// transaction. It answers one outcome per frame, and what was committed, by
// scope and rising position, for open streams. After an error nothing is known
// to be committed; the caller sends the frames again (Unavailable) or looks for
// the one that cannot be taken (Unprocessable).
func (s *Store) Commit(ctx context.Context, frames []*frame.Received) ([]frame.Outcome, []*frame.Published, error) {
	if len(frames) == 0 {
		return nil, nil, nil
	}
	began := time.Now()
	outcomes, published, err := s.commit(ctx, frames)
	result := "committed"
	if err != nil {
		result = "failed"
	}
	s.metrics.commits.WithLabelValues(result).Observe(time.Since(began).Seconds())
	return outcomes, published, err
}

func (s *Store) commit(ctx context.Context, frames []*frame.Received) ([]frame.Outcome, []*frame.Published, error) {
	times, err := allTimes(frames)
	if err != nil {
		return nil, nil, err
	}
	for attempt := 1; ; attempt++ {
		b := newBatch(frames, times, &s.spans)
		err = s.attempt(ctx, b)
		if err == nil {
			s.spans.remember(b.seen)
			s.count(b)
			return b.outcomes, s.publishable(ctx, b), nil
		}
		if !lostRace(err) || attempt == commitAttempts {
			return nil, nil, failure(ctx, fmt.Sprintf("commit %d frames", len(frames)), err)
		}
	}
}

// allTimes finds when the origins of each frame wrote, where ingest has not,
// before any lock is held.
func allTimes(frames []*frame.Received) ([][]frame.Times, error) {
	times := make([][]frame.Times, len(frames))
	for i, f := range frames {
		if f.Segment == nil || f.Quarantine != "" || f.Tombstone {
			continue
		}
		if times[i] = f.Times; times[i] != nil {
			continue
		}
		lines := f.Segment.Read()
		if err := lines.DecodeAll(); err != nil {
			return nil, &telemetry.Failure{Code: telemetry.Unprocessable, Message: "A frame cannot be decoded.", Cause: fmt.Errorf("%s: %w", &f.Header, err)}
		}
		times[i] = frame.OriginTimes(lines)
	}
	return times, nil
}

// lostRace reports whether the same commit may succeed when it starts again.
func lostRace(err error) bool {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return false
	}
	return pg.Code == deadlockDetected || pg.Code == serializationFailure || pg.Code == uniqueViolation && pg.ConstraintName == "ingest_mark_pkey"
}

// attempt runs the two round trips of doc.go. Its connection is dropped by the
// pool unless the transaction ended, which rolls back.
func (s *Store) attempt(ctx context.Context, b *batch) error {
	ctx, cancel := context.WithTimeout(ctx, commitTimeout)
	defer cancel()
	conn, err := s.ingest.Acquire(ctx)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer conn.Release()
	if err := b.readMarks(ctx, conn.Conn()); err != nil {
		return fmt.Errorf("read the marks: %w", err)
	}
	b.judge()
	if !b.changes() {
		if _, err := conn.Exec(ctx, "rollback"); err != nil {
			return fmt.Errorf("end the transaction: %w", err)
		}
		return nil
	}
	if err := b.write(ctx, conn.Conn()); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	return nil
}

// readMarks opens the transaction and locks the marks that exist.
func (b *batch) readMarks(ctx context.Context, conn *pgx.Conn) error {
	var orgs, nodes []string
	var epochs []int64
	var lanes []int16
	for _, m := range b.marks {
		orgs = append(orgs, string(m.org))
		nodes = append(nodes, string(m.node))
		epochs = append(epochs, int64(m.epoch)) //nolint:gosec // 64 bits are 64 bits
		lanes = append(lanes, int16(m.lane))
	}
	var q pgx.Batch
	q.Queue("begin isolation level read committed")
	q.Queue("select set_config('app.orgs', jsonb_object_agg(org, 1)::text, true) from unnest($1::text[]) org", b.orgs())
	q.Queue(lockMarks, orgs, nodes, epochs, lanes).Query(func(rows pgx.Rows) error {
		var i int
		var seq int64
		_, err := pgx.ForEachRow(rows, []any{&i, &seq}, func() error {
			m := b.marks[i-1]
			m.known, m.seq = true, uint64(seq) //nolint:gosec // written from one
			return nil
		})
		return err
	})
	if err := conn.SendBatch(ctx, &q).Close(); err != nil {
		return err
	}
	for _, m := range b.marks {
		if m.within && !m.known {
			if err := m.inherit(ctx, conn); err != nil {
				return err
			}
		}
	}
	return nil
}

// inherit starts the mark of a node that enrolled anew with the spool that it
// had: what its host sent under its old name is committed. Epochs are 64
// random bits, so that none but the same spool has the same one.
func (m *mark) inherit(ctx context.Context, conn *pgx.Conn) error {
	var seq int64
	err := conn.QueryRow(ctx, oldMark, string(m.org), int64(m.epoch), int16(m.lane)).Scan(&seq) //nolint:gosec // 64 bits are 64 bits
	if err != nil {
		return fmt.Errorf("of the same spool: %w", err)
	}
	m.seq = uint64(seq) //nolint:gosec // written from one
	m.base = m.seq
	return nil
}

// It reads all marks of an organisation, which only a spool in the middle of
// its epoch makes necessary.
const oldMark = `select coalesce(max(seq), 0) from ingest_mark where org = $1 and epoch = $2 and lane = $3`

const lockMarks = `select u.i::int, m.seq
from unnest($1::text[], $2::text[], $3::bigint[], $4::smallint[]) with ordinality as u (org, node, epoch, lane, i)
  join ingest_mark m on m.org = u.org and m.node = u.node and m.epoch = u.epoch and m.lane = u.lane
order by m.org, m.node, m.epoch, m.lane
for update of m`

// write queues everything that the judged frames change, and the commit.
func (b *batch) write(ctx context.Context, conn *pgx.Conn) error {
	var q pgx.Batch
	b.queueMarks(&q)
	b.queueAgents(&q)
	b.queueSessions(&q)
	b.queueCounters(&q)
	b.queueLines(&q)
	b.queueGaps(&q)
	b.queueEvents(&q)
	b.queueSpans(&q)
	b.queueModelCalls(&q)
	b.queueMetrics(&q)
	b.queueQuarantine(&q)
	q.Queue("commit").Exec(func(tag pgconn.CommandTag) error {
		if tag.String() != "COMMIT" {
			return fmt.Errorf("the database answered %s to commit", tag)
		}
		return nil
	})
	return conn.SendBatch(ctx, &q).Close()
}

// count counts what a commit did.
func (s *Store) count(b *batch) {
	var verdicts [frame.OutOfOrder + 1]float64
	for i := range b.outcomes {
		verdicts[b.outcomes[i].Verdict]++
	}
	for v, name := range []string{frame.Committed: "committed", frame.Duplicate: "duplicate", frame.OutOfOrder: "out_of_order"} {
		if verdicts[v] > 0 {
			s.metrics.frames.WithLabelValues(name).Add(verdicts[v])
		}
	}
	for _, sc := range b.scopes {
		for i := range sc.parts {
			s.metrics.lines.Add(float64(sc.parts[i].part.Lines))
		}
		for i := range sc.gaps {
			made := "node"
			if sc.gaps[i].Reason == telemetry.GapQuarantined {
				made = "here"
			}
			s.metrics.gaps.WithLabelValues(made).Inc()
		}
	}
}
