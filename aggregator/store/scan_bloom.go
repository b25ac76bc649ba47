package store

import (
	"context"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/theazo/observability/shared/segment"
)

// maxSifted bounds how many tokens a bloom is asked for, beside the one that
// candidates asks for: each costs a read of one page or two.
const maxSifted = 5

// siftTrial is after how many rows it is decided whether sifting is worth its
// while: a text that most chunks hold is looked for at once.
const siftTrial = 16

// sift leaves out chunks whose bloom does not hold what every match holds.
func (sc *scan) sift(ctx context.Context, rows []*row) ([]*row, error) {
	tokens := sc.siftTokens()
	if len(tokens) == 0 || sc.sifted >= siftTrial && sc.siftedOut < sc.sifted/8 {
		return rows, nil
	}
	absent := map[rowKey]bool{}
	var batch pgx.Batch
	for _, g := range sc.groups(rows) {
		if g.chunk {
			sc.queueSift(&batch, g, tokens, absent)
		}
	}
	if batch.Len() == 0 {
		return rows, nil
	}
	call, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	if err := sc.conn.SendBatch(call, &batch).Close(); err != nil {
		return nil, err
	}
	sc.sifted, sc.siftedOut = sc.sifted+len(rows), sc.siftedOut+len(absent)
	return slices.DeleteFunc(rows, func(r *row) bool { return absent[r.key()] }), nil
}

// siftTokens are the most telling ones after that which candidates asks for.
func (sc *scan) siftTokens() []segment.Token {
	if len(sc.tokens) <= 1 {
		return nil
	}
	return sc.tokens[1:min(len(sc.tokens), 1+maxSifted)]
}

func (sc *scan) queueSift(batch *pgx.Batch, g *rowGroup, tokens []segment.Token, absent map[rowKey]bool) {
	var q query
	q.add("select id")
	for _, t := range tokens {
		q.add(", ", bloomSlice(&q, t))
	}
	q.add(" from log_chunk where org = ", q.arg(string(sc.scope.Org)), " and env = ", q.arg(int16(sc.scope.Env)),
		" and class = ", q.arg(g.class), " and day = ", q.arg(g.day), " and id = any (", q.arg(g.ids), ")")
	batch.Queue(q.text.String(), q.args...).Query(func(rows pgx.Rows) error {
		defer rows.Close()
		for rows.Next() {
			values := rows.RawValues()
			id := positionOf(values[0])
			if r := g.rows[id]; r == nil || r.bloom%segment.BloomSlice != 1 {
				continue // of a version that is not known here
			}
			for i, t := range tokens {
				if !t.In(values[1+i]) {
					absent[rowKey{chunk: true, id: id}] = true
				}
			}
		}
		return rows.Err()
	})
}
