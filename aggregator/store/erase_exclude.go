package store

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/theazo/observability/shared/segment"
	"github.com/theazo/observability/shared/telemetry"
)

// erasureForce is how long late records of an erased subject are known for what
// they are, once it is done. (Marks are kept for ever, so a replay is a
// duplicate; this is for a node that was cut off and sends for the first time.)
const erasureForce = 400 * 24 * time.Hour

// exclusions are the erasures of one scope that are in force: what no reader
// shows. A nil pointer is none. It never changes, and is safe for concurrent use.
type exclusions struct {
	org     telemetry.OrgID
	key     ErasureKey
	version int64 // stream_counter.erasures

	// Of erasures that are not done: subject to the last timestamp that is
	// erased, in microseconds. Rows at any position may hold them.
	open      [3]map[string]int64 // by kind
	openUntil int64
	// Of those that are done: rows below doneFrom hold none.
	done      [3]map[subjectHash]int64
	doneUntil int64
	doneFrom  int64
}

const never = math.MinInt64

// empty reports whether nothing is excluded.
func (x *exclusions) empty() bool { return x == nil || x.openUntil == never && x.doneUntil == never }

// mayHold reports whether a row may hold erased lines: its counters count
// them, too. last is the highest position of its lines, t0 the lowest of their
// timestamps.
func (x *exclusions) mayHold(last int64, t0 time.Time) bool {
	if x.empty() {
		return false
	}
	at := t0.UnixMicro()
	if !t0.After(minTime) {
		at = never // moved to the edge of the calendar
	}
	return at <= x.openUntil || at <= x.doneUntil && last >= x.doneFrom
}

// bounds are what mayHold goes by, for a condition in SQL: a row may hold
// erased lines if its t0 is not after open, or if it is not after done and its
// last position is not below from.
func (x *exclusions) bounds() (open, done time.Time, from int64) {
	at := func(us int64) time.Time {
		if us == never {
			return minTime.Add(-time.Hour)
		}
		return clampTime(time.UnixMicro(us))
	}
	return at(x.openUntil), at(x.doneUntil), x.doneFrom
}

// until is the last timestamp, in microseconds, up to which records of an
// origin are erased; never where none is.
func (x *exclusions) until(o *telemetry.Origin) int64 {
	last := x.of(telemetry.EraseUser, string(o.User))
	last = max(last, x.of(telemetry.EraseSession, string(o.Session)))
	return max(last, x.of(telemetry.EraseAgent, string(o.Agent)))
}

func (x *exclusions) of(kind telemetry.ErasureKind, subject string) int64 {
	if x.empty() || subject == "" {
		return never
	}
	last := int64(never)
	if until, ok := x.open[kind][subject]; ok {
		last = until
	}
	if len(x.done[kind]) > 0 {
		if until, ok := x.done[kind][x.key.hash(x.org, kind, subject)]; ok {
			last = max(last, until)
		}
	}
	return last
}

// erased reports whether a record of an origin is.
func (x *exclusions) erased(o *telemetry.Origin, at time.Time) bool {
	return !x.empty() && clampTime(at).UnixMicro() <= x.until(o)
}

// erasedGap reports whether a gap is about an agent or session whose records are.
func (x *exclusions) erasedGap(g *telemetry.Gap) bool {
	return x.erased(&telemetry.Origin{Agent: g.Agent, Session: g.Session}, g.ObservedAt)
}

// keep takes the erased ones out of chosen, indices of lines of l, whose
// columns of times and origins it decodes if it must.
func (x *exclusions) keep(chosen []int, l *segment.Lines) ([]int, error) {
	untils := x.origins(l.Segment)
	if untils == nil || len(chosen) == 0 {
		return chosen, nil
	}
	if err := l.Decode(segment.Time, segment.Origin); err != nil {
		return nil, err
	}
	kept := chosen[:0]
	for _, i := range chosen {
		if l.Micros(i) > untils[l.OriginIndex(i)] {
			kept = append(kept, i)
		}
	}
	return kept, nil
}

// origins returns, for each origin of a segment, up to when its lines are
// erased; nil where no line can be.
func (x *exclusions) origins(s *segment.Segment) []int64 {
	first := s.Min.UnixMicro()
	if x.empty() || first > max(x.openUntil, x.doneUntil) {
		return nil
	}
	var untils []int64
	for i := range s.Origins {
		until := x.until(&s.Origins[i])
		if until < first {
			continue
		}
		if untils == nil {
			untils = make([]int64, len(s.Origins))
			for j := range untils {
				untils[j] = never
			}
		}
		untils[i] = until
	}
	return untils
}

// exclusionCache keeps the erasures in force of scopes that have any.
type exclusionCache struct {
	mu     sync.Mutex
	scopes map[telemetry.Scope]*exclusions
	held   int // subjects
}

// maxHeldSubjects bounds the cache: some 100 MB.
const maxHeldSubjects = 1_000_000

func (c *exclusionCache) get(scope telemetry.Scope, version int64) *exclusions {
	c.mu.Lock()
	defer c.mu.Unlock()
	if x := c.scopes[scope]; x != nil && x.version == version {
		return x
	}
	return nil
}

func (c *exclusionCache) put(scope telemetry.Scope, x *exclusions) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if old := c.scopes[scope]; old != nil {
		if old.version > x.version {
			return
		}
		c.held -= old.size()
	}
	if c.scopes == nil || c.held+x.size() > maxHeldSubjects {
		c.scopes, c.held = make(map[telemetry.Scope]*exclusions), 0
	}
	c.scopes[scope] = x
	c.held += x.size()
}

func (x *exclusions) size() int {
	n := 1
	for kind := range x.open {
		n += len(x.open[kind]) + len(x.done[kind])
	}
	return n
}

// exclusions returns the erasures in force in the snapshot of a transaction.
// version is what stream_counter.erasures is in it.
func (s *Store) exclusions(ctx context.Context, conn querier, scope telemetry.Scope, version int64) (*exclusions, error) {
	if version == 0 {
		return nil, nil //nolint:nilnil // nothing was ever erased here
	}
	if x := s.erasing.cache.get(scope, version); x != nil {
		return x, nil
	}
	call, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	x := &exclusions{org: scope.Org, key: s.erasing.key, version: version, openUntil: never, doneUntil: never, doneFrom: math.MaxInt64}
	rows, err := conn.Query(call, "select kind, subject, hash, key_id, until, clean_to from erasure where org = $1 and env = $2 and (status < 2 or done_at > $3)",
		string(scope.Org), int16(scope.Env), time.Now().Add(-erasureForce))
	if err != nil {
		return nil, fmt.Errorf("read erasures: %w", err)
	}
	var kind int16
	var subject *string
	var hash, keyID []byte
	var until time.Time
	var clean int64
	_, err = pgx.ForEachRow(rows, []any{&kind, &subject, &hash, &keyID, &until, &clean}, func() error {
		if subject == nil && !bytes.Equal(keyID, x.key.id()) {
			return errOtherKey
		}
		x.add(telemetry.ErasureKind(kind), subject, hash, until.UnixMicro(), clean) //nolint:gosec // 0 to 2
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read erasures: %w", err)
	}
	s.erasing.cache.put(scope, x)
	return x, nil
}

func (x *exclusions) add(kind telemetry.ErasureKind, subject *string, hash []byte, until, clean int64) {
	if subject != nil {
		if x.open[kind] == nil {
			x.open[kind] = make(map[string]int64)
		}
		if last, known := x.open[kind][*subject]; !known || last < until {
			x.open[kind][*subject] = until
		}
		x.openUntil = max(x.openUntil, until)
		return
	}
	if x.done[kind] == nil {
		x.done[kind] = make(map[subjectHash]int64)
	}
	h := subjectHash(hash)
	if last, known := x.done[kind][h]; !known || last < until {
		x.done[kind][h] = until
	}
	x.doneUntil, x.doneFrom = max(x.doneUntil, until), min(x.doneFrom, clean)
}

// erasureVersion reads stream_counter.erasures.
func erasureVersion(ctx context.Context, conn querier, scope telemetry.Scope) (version int64, err error) {
	call, cancel := context.WithTimeout(ctx, shortTimeout)
	defer cancel()
	err = conn.QueryRow(call, "select erasures from stream_counter where org = $1 and env = $2", string(scope.Org), int16(scope.Env)).Scan(&version)
	if noRows(err) {
		return 0, nil
	}
	return version, err
}
