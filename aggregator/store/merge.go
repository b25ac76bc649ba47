package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/theazo/observability/shared/segment"
	"github.com/theazo/observability/shared/telemetry"
)

// Small organisations make small chunks, one for every ten minutes. When there
// are so many of one day, neighbours in the stream become few larger ones: each
// chunk is one more thing that a query looks at.
const (
	smallLines  = 2_048
	mergeLeast  = 8      // small chunks
	mergeLines  = 16_384 // together, at most
	mergeRaw    = 8 << 20
	mergeAtOnce = 32     // groups between two rounds of compaction
	mergeKnown  = 50_000 // groups that are counted

	// A day that is over gets a last merge of what is smaller than this.
	tinyLines   = 1_024
	closedAfter = time.Hour // late lines
)

// chunkGroup is what chunks must have in common to be merged.
type chunkGroup struct {
	scope telemetry.Scope
	classDay
}

func (g chunkGroup) String() string {
	return fmt.Sprintf("%s class %d %s", g.scope, g.class, g.day.date().Format(time.DateOnly))
}

// mergeTask is a group to look at: runs of at least so many chunks that are
// smaller than so many lines are merged.
type mergeTask struct {
	chunkGroup
	smaller, least int
}

// mergeQueue counts the small chunks that were written here, so that nobody has
// to search for groups worth a merge. What it forgets, the sweep of the day
// finds. Safe for concurrent use.
type mergeQueue struct {
	mu    sync.Mutex
	small map[chunkGroup]int
	tasks []mergeTask
	bad   map[chunkGroup][]int64 // ids of chunks that cannot be read or merged
}

func (q *mergeQueue) note(scope telemetry.Scope, c *dayChunk) {
	if c.Lines < smallLines && c.RawBytes < chunkRaw/2 {
		q.add(chunkGroup{scope, classDay{c.class, c.day}}, 1)
	}
}

func (q *mergeQueue) add(g chunkGroup, n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.small == nil {
		q.small = map[chunkGroup]int{}
	}
	if _, known := q.small[g]; known || len(q.small) < mergeKnown {
		q.small[g] += n
	}
}

func (q *mergeQueue) put(tasks ...mergeTask) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.tasks = append(q.tasks, tasks...)
}

// take returns what is worth a look, and forgets it.
func (q *mergeQueue) take(most int) []mergeTask {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := min(most, len(q.tasks))
	list := q.tasks[:n:n]
	q.tasks = q.tasks[n:]
	for g, n := range q.small {
		if len(list) == most {
			break
		}
		if n >= mergeLeast {
			list = append(list, mergeTask{g, smallLines, mergeLeast})
			delete(q.small, g)
		}
	}
	return list
}

func (q *mergeQueue) avoid(g chunkGroup, ids ...int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.bad == nil {
		q.bad = map[chunkGroup][]int64{}
	}
	q.bad[g] = append(q.bad[g], ids...)
}

func (q *mergeQueue) avoided(g chunkGroup) []int64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return append([]int64{}, q.bad[g]...) // null would be no list
}

// mergeRound merges what the queue finds worth it. done counts the groups in
// which something was merged.
func (c *compactor) mergeRound(ctx context.Context) (done int, err error) {
	tasks := c.merges.take(mergeAtOnce)
	for i, t := range tasks {
		if ctx.Err() != nil {
			return done, ctx.Err()
		}
		merged, left, err := c.mergeGroup(ctx, t)
		if err != nil {
			c.merges.put(append(tasks[i+1:], t)...) // others first: they may do better
			return done, err
		}
		if merged > 0 { // else the same chunks would be looked at for ever
			c.merges.add(t.chunkGroup, left)
			done++
		}
	}
	return done, nil
}

const selectSmall = `select id, last, n, raw from log_chunk
where org = $1 and env = $2 and class = $3 and day = $4 and n < $5 and raw < $6 and not (id = any ($7))
order by id limit 4096`

// smallChunk is what is known of a chunk before it is merged. A chunk that lost
// lines to an erasure keeps its id and has fewer.
type smallChunk struct {
	id, last int64
	n        int
	raw      int64
}

// mergeGroup merges the small chunks of a group. merged is how many there were,
// left how many small ones there may be then.
func (c *compactor) mergeGroup(ctx context.Context, t mergeTask) (merged, left int, err error) {
	g := t.chunkGroup
	lease := []string{"merge " + g.String()}
	taken, err := c.store.takeLeases(ctx, lease)
	if err != nil || len(taken) == 0 {
		return 0, 0, err
	}
	defer c.store.releaseLeases(ctx, lease)
	list, err := c.listSmall(ctx, t)
	if err != nil {
		return 0, 0, fmt.Errorf("list small chunks of %s: %w", g, err)
	}
	left = len(list)
	for run := range mergeRuns(list) {
		if len(run) < t.least || ctx.Err() != nil {
			continue
		}
		made, err := c.mergeRun(ctx, g, run)
		switch {
		case errors.Is(err, errOvertaken):
		case errors.Is(err, segment.ErrCorrupt):
			c.store.log.Error("a chunk cannot be decoded and is left as it is; look for a fault of the database's disk", "group", g.String(), "error", err)
		case poison(err): // it does not say of which one
			c.merges.avoid(g, idsOf(run)...)
			c.store.log.Error("chunks cannot be read or merged and are left as they are; look for a fault of the database's disk", "group", g.String(), "error", err)
		case err != nil:
			return merged, left, fmt.Errorf("merge chunks of %s: %w", g, err)
		default:
			merged += len(run)
			left += made - len(run)
		}
	}
	return merged, left, nil
}

func (c *compactor) listSmall(ctx context.Context, t mergeTask) ([]smallChunk, error) {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	rows, err := c.store.maint.Query(ctx, selectSmall, string(t.scope.Org), int16(t.scope.Env), t.class, t.day.date(), t.smaller, chunkRaw/2, c.merges.avoided(t.chunkGroup))
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (k smallChunk, err error) {
		err = row.Scan(&k.id, &k.last, &k.n, &k.raw)
		return k, err
	})
}

// mergeRuns yields the neighbours that may be merged together.
func mergeRuns(list []smallChunk) func(yield func([]smallChunk) bool) {
	return func(yield func([]smallChunk) bool) {
		start, lines, raw := 0, 0, int64(0)
		for i, k := range list {
			if i > start && (lines+k.n > mergeLines || raw+k.raw > mergeRaw) {
				if !yield(list[start:i]) {
					return
				}
				start, lines, raw = i, 0, 0
			}
			lines, raw = lines+k.n, raw+k.raw
		}
		if start < len(list) {
			yield(list[start:])
		}
	}
}

// mergeRun puts new chunks in the place of old ones, unless one of them is gone.
func (c *compactor) mergeRun(ctx context.Context, g chunkGroup, run []smallChunk) (made int, err error) {
	began := time.Now()
	chunks, err := c.readRun(ctx, g, run)
	if err != nil {
		return 0, err
	}
	if err := c.store.replaceChunks(ctx, g, run, chunks); err != nil {
		return 0, err
	}
	m := c.store.metrics
	m.merges.Observe(time.Since(began).Seconds())
	m.merged.Add(float64(len(run)))
	return len(chunks), nil
}

const (
	selectChunks = `select id, head, c_time, c_flags, c_origin, c_message, c_metadata, c_trace, c_place from log_chunk
where org = $1 and env = $2 and class = $3 and day = $4 and id = any ($5)`

	// A chunk that lost lines to an erasure has fewer than were read.
	deleteChunks = `delete from log_chunk c using unnest($5::bigint[], $6::bigint[], $7::int[]) u (id, last, n)
where c.org = $1 and c.env = $2 and c.class = $3 and c.day = $4 and c.id = u.id and c.last = u.last and c.n = u.n`
)

func idsOf(run []smallChunk) []int64 {
	list := make([]int64, len(run))
	for i := range run {
		list[i] = run[i].id
	}
	return list
}

func lastsOf(run []smallChunk) []int64 {
	list := make([]int64, len(run))
	for i := range run {
		list[i] = run[i].last
	}
	return list
}

func linesOf(run []smallChunk) []int32 {
	list := make([]int32, len(run))
	for i := range run {
		list[i] = int32(run[i].n) //nolint:gosec // a count of lines
	}
	return list
}

// readRun reads chunks and cuts their lines anew.
func (c *compactor) readRun(ctx context.Context, g chunkGroup, run []smallChunk) ([]*dayChunk, error) {
	cutter, _ := c.cutters.Get().(*chunkCutter)
	defer c.cutters.Put(cutter)
	cutter.reset()
	ctx, cancel := context.WithTimeout(ctx, compactTimeout)
	defer cancel()
	rows, err := c.store.maint.Query(ctx, selectChunks, string(g.scope.Org), int16(g.scope.Env), g.class, g.day.date(), idsOf(run))
	if err != nil {
		return nil, fmt.Errorf("read chunks: %w", err)
	}
	defer rows.Close()
	read := 0
	for rows.Next() {
		var id int64
		var head, place []byte
		var k [segment.NumColumns][]byte
		if err := rows.Scan(&id, &head, &k[segment.Time], &k[segment.Flags], &k[segment.Origin], &k[segment.Message], &k[segment.Metadata], &k[segment.Trace], &place); err != nil {
			return nil, fmt.Errorf("read chunks: %w", err)
		}
		if err := addChunk(cutter, g.day, head, &k, place); err != nil {
			c.merges.avoid(g, id)
			return nil, fmt.Errorf("chunk %d: %w", id, err)
		}
		read++
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read chunks: %w", err)
	}
	if read != len(run) {
		return nil, errOvertaken
	}
	return cutter.cut(g.class), nil
}

// addChunk decodes a chunk into the cutter.
func addChunk(cutter *chunkCutter, day chunkDay, head []byte, columns *[segment.NumColumns][]byte, place []byte) error {
	parts, err := segment.Split(head, columns)
	if err != nil {
		return err
	}
	places, err := segment.ReadPlaces(place)
	if err != nil {
		return err
	}
	for i := range parts {
		lines := parts[i].Read()
		if err := lines.DecodeAll(); err != nil {
			return err
		}
		at, err := places.Block(i)
		if err != nil {
			return err
		}
		if at.Lines() != lines.Segment.Lines {
			return fmt.Errorf("%w: %d lines have %d places", segment.ErrCorrupt, lines.Segment.Lines, at.Lines())
		}
		cutter.add(lineBlock{lines: lines, places: at, day: func(int) chunkDay { return day }})
	}
	return nil
}

// replaceChunks is all or nothing: who finds one of the old chunks gone, or
// rewritten since it was listed, changes nothing.
func (s *Store) replaceChunks(ctx context.Context, g chunkGroup, old []smallChunk, chunks []*dayChunk) error {
	return s.inMaint(ctx, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, deleteChunks, string(g.scope.Org), int16(g.scope.Env), g.class, g.day.date(), idsOf(old), lastsOf(old), linesOf(old))
		if err != nil {
			return fmt.Errorf("delete chunks: %w", err)
		}
		if tag.RowsAffected() != int64(len(old)) {
			return errOvertaken
		}
		var q pgx.Batch
		queueChunks(&q, g.scope, chunks)
		if err := tx.SendBatch(ctx, &q).Close(); err != nil {
			return fmt.Errorf("insert chunks: %w", err)
		}
		return nil
	})
}

const selectGroups = `select org, env from log_chunk where class = $1 and day = $2 and n < $3 group by org, env having count(*) >= $4 order by org, env`

// sweep puts groups into the queue that it does not know: at the start those of
// today, and once a day is over whatever is tiny.
func (c *compactor) sweep(ctx context.Context, now time.Time) error {
	if c.swept == nil {
		c.swept = map[classDay]bool{}
	}
	existing, err := c.store.chunkPartitions(ctx)
	if err != nil {
		return err
	}
	listed := map[classDay]bool{}
	for _, p := range existing {
		day := classDay{p.class, p.day}
		listed[day] = true
		closed := p.day.date().Add(24*time.Hour + closedAfter).Before(now)
		over, seen := c.swept[day]
		switch {
		case p.day > dayOf(now) || seen && over == closed:
			continue
		case closed && p.day < dayOf(now)-sweepDays:
			c.swept[day] = true
			continue
		}
		if err := c.sweepDay(ctx, day, closed); err != nil {
			return err
		}
		c.swept[day] = closed
	}
	maps.DeleteFunc(c.swept, func(d classDay, _ bool) bool { return !listed[d] })
	return nil
}

// sweepDays is how many closed days are looked at after a start.
const sweepDays = 3

func (c *compactor) sweepDay(ctx context.Context, day classDay, closed bool) error {
	smaller, least := smallLines, mergeLeast
	if closed {
		smaller, least = tinyLines, 2
	}
	call, cancel := context.WithTimeout(ctx, compactTimeout)
	defer cancel()
	rows, err := c.store.maint.Query(call, selectGroups, day.class, day.day.date(), smaller, least)
	if err != nil {
		return fmt.Errorf("look for small chunks: %w", err)
	}
	groups, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (chunkGroup, error) {
		var env int16
		g := chunkGroup{classDay: day}
		err := row.Scan(&g.scope.Org, &env)
		g.scope.Env = telemetry.Environment(env) //nolint:gosec // 0 or 1
		return g, err
	})
	if err != nil {
		return fmt.Errorf("look for small chunks: %w", err)
	}
	for _, g := range groups {
		c.merges.put(mergeTask{g, smaller, least})
	}
	return nil
}
