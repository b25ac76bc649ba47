package store

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/theazo/observability/shared/frame"
	"github.com/theazo/observability/shared/segment"
	"github.com/theazo/observability/shared/telemetry"
)

// Streams go by position, and what is erased leaves holes between positions.
// They are told as positions that hold nothing, so that no reader takes them
// for lines that it missed.

// absent are positions [from, to] that hold nothing.
func absent(scope telemetry.Scope, from, to int64) *frame.Published {
	return &frame.Published{Scope: scope, Position: from, Absent: to - from + 1}
}

// appendPublished appends what may be shown of a part of a hot row, without a
// hole.
func (sc *scan) appendPublished(list []*frame.Published, position int64, recv time.Time, part *segment.Part, lines *segment.Lines) ([]*frame.Published, error) {
	if sc.excluded.origins(part.Segment) != nil {
		all := make([]int, 0, part.Lines)
		for i := range part.Lines {
			all = append(all, i)
		}
		kept, err := sc.excluded.keep(all, lines)
		if err != nil {
			return nil, err
		}
		if len(kept) < part.Lines {
			return sc.appendKept(list, kept, segmentBlock(lines, part, position, recv.UTC()))
		}
	}
	return append(list, frame.NewPublished(sc.scope, position, recv.UTC(), part, lines)), nil
}

func (sc *scan) appendKept(list []*frame.Published, kept []int, b lineBlock) ([]*frame.Published, error) {
	placed := make([]placedLine, len(kept))
	for i, line := range kept {
		placed[i].at = b.place(line)
		b.lines.Entry(line, &placed[i].entry)
	}
	runs, err := publishRuns(sc.scope, placed)
	if err != nil {
		return nil, err
	}
	first := b.first.Position
	return append(list, sc.fill(runs, nil, first-1, first+int64(b.lines.Segment.Lines))...), nil
}

// fill puts positions that hold nothing between runs and gaps, which are all
// that there is at positions in (after, below).
func (sc *scan) fill(runs []*frame.Published, gaps []telemetry.Gap, after, below int64) []*frame.Published {
	if sc.erasures == 0 {
		return runs
	}
	var list []*frame.Published
	at := after + 1
	to := func(position int64) {
		if at < position {
			list = append(list, absent(sc.scope, at, position-1))
		}
	}
	for len(runs) > 0 || len(gaps) > 0 {
		if len(gaps) > 0 && (len(runs) == 0 || gaps[0].Position < runs[0].Position) {
			to(gaps[0].Position)
			at, gaps = gaps[0].Position+1, gaps[1:]
			continue
		}
		to(runs[0].Position)
		list = append(list, runs[0])
		at, runs = runs[0].Next(), runs[1:]
	}
	to(below)
	return list
}

// hideGaps makes of gaps of erased agents and sessions positions that hold
// nothing, among the lines.
func (sc *scan) hideGaps(list []*frame.Published, gaps []telemetry.Gap) ([]*frame.Published, []telemetry.Gap) {
	if sc.excluded.empty() {
		return list, gaps
	}
	for i := range gaps {
		if sc.excluded.erasedGap(&gaps[i]) {
			list = append(list, absent(sc.scope, gaps[i].Position, gaps[i].Position))
		}
	}
	slices.SortStableFunc(list, func(a, b *frame.Published) int { return cmp.Compare(a.Position, b.Position) })
	return list, sc.shownGaps(gaps)
}

// shownGaps takes out gaps of erased agents and sessions.
func (sc *scan) shownGaps(gaps []telemetry.Gap) []telemetry.Gap {
	if sc.excluded.empty() {
		return gaps
	}
	kept := gaps[:0]
	for i := range gaps {
		if !sc.excluded.erasedGap(&gaps[i]) {
			kept = append(kept, gaps[i])
		}
	}
	return kept
}

// bridge tells a hole before what was read as positions that hold nothing,
// where something was ever erased: unless the hole lies below all that is
// stored, where retention took it.
func (sc *scan) bridge(ctx context.Context, list []*frame.Published, after int64) ([]*frame.Published, error) {
	next := sc.head + 1
	if len(list) > 0 {
		next = list[0].Position
	}
	if sc.erasures == 0 || next <= after+1 {
		return list, nil
	}
	call, cancel := context.WithTimeout(ctx, shortTimeout)
	defer cancel()
	var oldest int64
	err := sc.conn.QueryRow(call, "select id from log_chunk where org = $1 and env = $2 order by last limit 1", string(sc.scope.Org), int16(sc.scope.Env)).Scan(&oldest)
	if err != nil && !noRows(err) {
		return nil, err
	}
	if oldest > after+1 {
		return list, nil
	}
	return append([]*frame.Published{absent(sc.scope, after+1, next-1)}, list...), nil
}

// publishable leaves out the parts of a commit that hold erased lines, which
// came late: open views then read the stream, which leaves the lines out. What
// is published is only a hint.
func (s *Store) publishable(ctx context.Context, b *batch) []*frame.Published {
	list := b.published()
	for _, sc := range b.scopes {
		if sc.erasures == 0 {
			continue
		}
		x, err := s.exclusionsOf(ctx, sc.scope, sc.erasures)
		if err != nil {
			s.log.Warn("what is erased could not be read; open views read the stream instead", "scope", sc.scope.String(), "error", err)
		}
		kept := list[:0]
		for _, p := range list {
			if p.Scope == sc.scope && (err != nil || x.touches(p)) {
				continue
			}
			kept = append(kept, p)
		}
		list = kept
	}
	return list
}

// touches reports whether a part may hold something that is erased.
func (x *exclusions) touches(p *frame.Published) bool {
	for i := range p.Gaps {
		if x.erasedGap(&p.Gaps[i]) {
			return true
		}
	}
	return p.Lines != nil && x.origins(p.Lines.Segment) != nil
}

// exclusionsOf is exclusions outside of a snapshot: those of a version or of a
// later one.
func (s *Store) exclusionsOf(ctx context.Context, scope telemetry.Scope, version int64) (x *exclusions, err error) {
	if version > 0 {
		if x := s.erasing.cache.get(scope, version); x != nil {
			return x, nil
		}
	}
	err = s.inScope(ctx, "read erasures of "+scope.String(), scope, func(ctx context.Context, conn *pgx.Conn) error {
		version, err := erasureVersion(ctx, conn, scope)
		if err != nil {
			return err
		}
		x, err = s.exclusions(ctx, conn, scope, version)
		return err
	})
	return x, err
}
