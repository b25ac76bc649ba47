package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/theazo/observability/shared/segment"
	"github.com/theazo/observability/shared/telemetry"
)

// target is what an erasure means for one subject.
type target struct {
	number int64
	until  int64 // microseconds
}

// eraser knows the subjects of the erasures that are being worked on.
type eraser struct {
	scope  telemetry.Scope
	key    ErasureKey
	open   [3]map[string][]target // by kind
	done   [3]map[subjectHash][]target
	latest int64 // of all untils

	// Agents and sessions of what was taken out of lines that came late: their
	// rows may have come back. Bounded by maxLateBeings.
	agents, sessions map[string]struct{}
}

const maxLateBeings = 10_000

func newEraser(scope telemetry.Scope, key ErasureKey) *eraser {
	return &eraser{scope: scope, key: key, latest: never, agents: map[string]struct{}{}, sessions: map[string]struct{}{}}
}

func (e *eraser) add(w *erasureWork) {
	t := target{number: w.number, until: w.until.UnixMicro()}
	e.latest = max(e.latest, t.until)
	if w.subject != nil {
		if e.open[w.kind] == nil {
			e.open[w.kind] = map[string][]target{}
		}
		e.open[w.kind][*w.subject] = append(e.open[w.kind][*w.subject], t)
		return
	}
	if e.done[w.kind] == nil {
		e.done[w.kind] = map[subjectHash][]target{}
	}
	h := subjectHash(w.hash)
	e.done[w.kind][h] = append(e.done[w.kind][h], t)
}

// of returns the erasures that an origin is a subject of.
func (e *eraser) of(o *telemetry.Origin) (list []target) {
	for kind, subject := range [3]string{telemetry.EraseUser: string(o.User), telemetry.EraseSession: string(o.Session), telemetry.EraseAgent: string(o.Agent)} {
		if subject == "" {
			continue
		}
		list = append(list, e.open[kind][subject]...)
		if len(e.done[kind]) > 0 {
			list = append(list, e.done[kind][e.key.hash(e.scope.Org, telemetry.ErasureKind(kind), subject)]...)
		}
	}
	return list
}

// number is the first erasure whose time covers a line; 0: none does.
func number(list []target, micros int64) int64 {
	for _, t := range list {
		if micros <= t.until {
			return t.number
		}
	}
	return 0
}

// mayHold reports whether a line of a segment can be a subject's.
func (e *eraser) mayHold(s *segment.Segment) bool {
	if s.Min.UnixMicro() > e.latest {
		return false
	}
	for i := range s.Origins {
		for _, t := range e.of(&s.Origins[i]) {
			if s.Min.UnixMicro() <= t.until {
				return true
			}
		}
	}
	return false
}

// note remembers whose lines were taken out.
func (e *eraser) note(o *telemetry.Origin) {
	if len(e.agents)+len(e.sessions) < maxLateBeings {
		e.agents[string(o.Agent)] = struct{}{}
		if o.Session != "" {
			e.sessions[string(o.Session)] = struct{}{}
		}
	}
}

// chunkKey names a chunk as it was read. A chunk that lost lines has fewer.
type chunkKey struct {
	class    int16
	day      time.Time
	id, last int64
	n        int
}

// maxPassChunks is how many chunks of one day are noted to be looked into,
// before they are.
const maxPassChunks = 4096

// eraseLines looks at all lines in chunks from a position on and takes out
// those of the eraser's subjects. It goes by partition: lines never move from
// one to another, so a partition seen at one moment is seen whole.
func (s *Store) eraseLines(ctx context.Context, e *eraser, from int64) (looked, removed int64, err error) {
	days, err := s.erasureDays(ctx, e, from)
	if err != nil {
		return 0, 0, fmt.Errorf("list days of lines: %w", err)
	}
	for _, d := range days {
		after := int64(-1)
		for more := true; more; {
			var found []chunkKey
			var n int64
			if found, n, after, more, err = s.findErased(ctx, e, d, from, after); err != nil {
				return looked, removed, fmt.Errorf("look for lines to erase: %w", err)
			}
			looked += n
			for _, k := range found {
				gone, err := s.rewriteChunk(ctx, e, k)
				if errors.Is(err, errOvertaken) {
					gone, err = 1, nil // whatever it is now is looked at in the next pass
				}
				if err != nil {
					return looked, removed, fmt.Errorf("rewrite the chunk at position %d: %w", k.id, err)
				}
				removed += gone
			}
		}
	}
	return looked, removed, nil
}

func (s *Store) erasureDays(ctx context.Context, e *eraser, from int64) ([]chunkKey, error) {
	ctx, cancel := context.WithTimeout(ctx, maintTimeout)
	defer cancel()
	rows, err := s.maint.Query(ctx, "select distinct class, day from log_chunk where org = $1 and env = $2 and last >= $3 and t0 <= $4 order by class, day",
		string(e.scope.Org), int16(e.scope.Env), from, clampTime(time.UnixMicro(e.latest)))
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (k chunkKey, err error) {
		err = row.Scan(&k.class, &k.day)
		return k, err
	})
}

// findErased lists chunks of one partition that may hold lines of subjects, by
// their dictionaries alone. looked counts the lines that these tell of.
func (s *Store) findErased(ctx context.Context, e *eraser, d chunkKey, from, after int64) (found []chunkKey, looked, at int64, more bool, err error) {
	at = after
	call, cancel := context.WithTimeout(ctx, maintTimeout)
	defer cancel()
	rows, err := s.maint.Query(call, `select id, last, n, head from log_chunk
where org = $1 and env = $2 and class = $3 and day = $4 and last >= $5 and t0 <= $6 and id > $7 order by id`,
		string(e.scope.Org), int16(e.scope.Env), d.class, d.day, from, clampTime(time.UnixMicro(e.latest)), after)
	if err != nil {
		return nil, 0, at, false, err
	}
	defer rows.Close()
	for rows.Next() {
		k := d
		var head []byte
		if err := rows.Scan(&k.id, &k.last, &k.n, &head); err != nil {
			return nil, 0, at, false, err
		}
		parts, err := segment.Split(head, &[segment.NumColumns][]byte{})
		if err != nil {
			return nil, 0, at, false, fmt.Errorf("chunk at position %d: %w", k.id, err)
		}
		looked, at = looked+int64(k.n), k.id
		for i := range parts {
			if e.mayHold(parts[i].Segment) {
				found = append(found, k)
				break
			}
		}
		if len(found) == maxPassChunks {
			return found, looked, at, true, nil
		}
	}
	return found, looked, at, false, rows.Err()
}

const readChunk = `select odd, head, c_time, c_flags, c_origin, c_message, c_metadata, c_trace, c_place from log_chunk
where org = $1 and env = $2 and class = $3 and day = $4 and id = $5 and last = $6 and n = $7`

// rewriteChunk takes the lines of subjects out of a chunk. Their count and the
// chunk change together.
func (s *Store) rewriteChunk(ctx context.Context, e *eraser, k chunkKey) (removed int64, err error) {
	call, cancel := context.WithTimeout(ctx, compactTimeout)
	defer cancel()
	org, env := string(e.scope.Org), int16(e.scope.Env)
	var odd bool
	var head, places []byte
	var c [segment.NumColumns][]byte
	err = s.maint.QueryRow(call, readChunk, org, env, k.class, k.day, k.id, k.last, k.n).Scan(&odd, &head,
		&c[segment.Time], &c[segment.Flags], &c[segment.Origin], &c[segment.Message], &c[segment.Metadata], &c[segment.Trace], &places)
	if noRows(err) {
		return 0, errOvertaken
	}
	if err != nil {
		return 0, err
	}
	rest, by, err := e.without(head, &c, places)
	if err != nil || len(by) == 0 {
		return 0, err
	}
	var numbers, counts []int64
	for number, n := range by {
		numbers, counts, removed = append(numbers, number), append(counts, n), removed+n
	}
	err = s.inMaint(call, func(tx pgx.Tx) error {
		// Compaction locks the counter, too; a merge finds the chunk gone, or with
		// fewer lines.
		if _, err := tx.Exec(call, "select from stream_counter where org = $1 and env = $2 for update", org, env); err != nil {
			return fmt.Errorf("lock the counter: %w", err)
		}
		tag, err := tx.Exec(call, "delete from log_chunk where org = $1 and env = $2 and class = $3 and day = $4 and id = $5 and last = $6 and n = $7",
			org, env, k.class, k.day, k.id, k.last, k.n)
		if err != nil {
			return fmt.Errorf("delete the chunk: %w", err)
		}
		if tag.RowsAffected() != 1 {
			return errOvertaken
		}
		var q pgx.Batch
		if rest != nil {
			queueChunks(&q, e.scope, []*dayChunk{{Chunk: rest, class: k.class, day: dayOf(k.day), odd: odd}})
		}
		q.Queue(`update erasure e set lines = e.lines + u.n, chunks = e.chunks + 1 from unnest($3::bigint[], $4::bigint[]) u (number, n)
where e.org = $1 and e.env = $2 and e.number = u.number`, org, env, numbers, counts)
		return tx.SendBatch(call, &q).Close()
	})
	if err != nil {
		return 0, err
	}
	s.metrics.erased.WithLabelValues("lines").Add(float64(removed))
	s.metrics.erased.WithLabelValues("chunks").Inc()
	return removed, nil
}

// without makes a chunk of what is left, nil where nothing is, and counts the
// lines that are not by the erasure that they fell to.
func (e *eraser) without(head []byte, columns *[segment.NumColumns][]byte, placeColumn []byte) (*segment.Chunk, map[int64]int64, error) {
	parts, err := segment.Split(head, columns)
	if err != nil {
		return nil, nil, err
	}
	places, err := segment.ReadPlaces(placeColumn)
	if err != nil {
		return nil, nil, err
	}
	by := map[int64]int64{}
	var w segment.ChunkWriter
	for i := range parts {
		lines := parts[i].Read()
		if err := lines.DecodeAll(); err != nil {
			return nil, nil, err
		}
		block, err := places.Block(i)
		if err != nil {
			return nil, nil, err
		}
		targets := make([][]target, len(parts[i].Origins))
		for o := range targets {
			targets[o] = e.of(&parts[i].Origins[o])
		}
		for line := range parts[i].Lines {
			o := lines.OriginIndex(line)
			if n := number(targets[o], lines.Micros(line)); n > 0 {
				by[n]++
				e.note(&parts[i].Origins[o])
				continue
			}
			w.Append(lines, line, block.At(line))
		}
	}
	if len(by) == 0 {
		return nil, nil, nil
	}
	return w.Encode(), by, nil
}
