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

// sift leaves out chunks whose bloom does not hold what every match holds.
func (sc *scan) sift(ctx context.Context, rows []*row) ([]*row, error) {
	tokens := sc.siftTokens()
	if len(tokens) == 0 {
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
	return slices.DeleteFunc(rows, func(r *row) bool { return absent[r.key()] }), nil
}

// siftTokens chooses tokens from all over the texts.
func (sc *scan) siftTokens() []segment.Token {
	if len(sc.tokens) <= 1 {
		return nil
	}
	rest := sc.tokens[1:]
	n := min(len(rest), maxSifted)
	tokens := make([]segment.Token, n)
	for i := range tokens {
		tokens[i] = rest[(2*i+1)*len(rest)/(2*n)]
	}
	return tokens
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
