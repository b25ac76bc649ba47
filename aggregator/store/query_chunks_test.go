package store_test

import (
	"cmp"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"pgregory.net/rapid"

	"github.com/theazo/observability/shared/segment"
	"github.com/theazo/observability/shared/telemetry"
)

// hotLine is a line of log_hot with its place.
type hotLine struct {
	lines *segment.Lines
	i     int
	entry telemetry.LogEntry
	at    segment.Place
	day   time.Time
	odd   bool
}

// hotLines decodes what hot rows hold at positions in [from, below).
func hotLines(tb testing.TB, conn *pgx.Conn, scope telemetry.Scope, from, below int64) []hotLine {
	tb.Helper()
	rows, err := conn.Query(tb.Context(), `select pos, recv_at, head, c_time, c_flags, c_origin, c_message, c_metadata, c_trace from log_hot
where org = $1 and env = $2 and pos >= $3 and pos < $4 order by pos`, string(scope.Org), int16(scope.Env), from, below)
	if err != nil {
		tb.Fatal(err)
	}
	defer rows.Close()
	var list []hotLine
	for rows.Next() {
		var pos int64
		var recv time.Time
		var head []byte
		var c [segment.NumColumns][]byte
		if err := rows.Scan(&pos, &recv, &head, &c[0], &c[1], &c[2], &c[3], &c[4], &c[5]); err != nil {
			tb.Fatal(err)
		}
		parts, err := segment.Split(head, &c)
		if err != nil {
			tb.Fatal(err)
		}
		for p := range parts {
			lines := parts[p].Read()
			if err := lines.DecodeAll(); err != nil {
				tb.Fatal(err)
			}
			for i := range parts[p].Lines {
				l := hotLine{lines: lines, i: i, at: segment.Place{Position: pos, Node: parts[p].Node, Epoch: parts[p].Epoch, Seq: parts[p].FirstSeq + uint64(i), Observed: recv}}
				lines.Entry(i, &l.entry)
				at := l.entry.Timestamp
				if oldest := recv.Add(-30 * 24 * time.Hour); at.Before(oldest) {
					at, l.odd = oldest, true
				}
				if newest := recv.Add(10 * time.Minute); at.After(newest) {
					at, l.odd = newest, true
				}
				l.day = at.UTC().Truncate(24 * time.Hour)
				list = append(list, l)
				pos++
			}
		}
	}
	if err := rows.Err(); err != nil {
		tb.Fatal(err)
	}
	return list
}

// drawCompaction puts some of the hot rows into chunks, or none.
func drawCompaction(tb testing.TB, t *rapid.T, conn *pgx.Conn, scope telemetry.Scope) {
	tb.Helper()
	rows, err := conn.Query(tb.Context(), `select pos from log_hot h join stream_counter s on s.org = h.org and s.env = h.env
where h.org = $1 and h.env = $2 and pos > compacted union all select next from stream_counter where org = $1 and env = $2 and next > compacted order by pos`, string(scope.Org), int16(scope.Env))
	if err != nil {
		tb.Fatal(err)
	}
	at, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err != nil {
		tb.Fatal(err)
	}
	if len(at) > 0 && rapid.Bool().Draw(t, "compact") {
		putIntoChunks(tb, conn, scope, rapid.SampledFrom(at).Draw(t, "compact below"), rapid.IntRange(1, 30).Draw(t, "lines of a chunk"))
	}
}

// putIntoChunks does what compaction does, in one transaction: the lines of
// hot rows from compacted up to a position that is the beginning of a row go
// into chunks of a few lines.
func putIntoChunks(tb testing.TB, conn *pgx.Conn, scope telemetry.Scope, below int64, size int) {
	tb.Helper()
	tx, err := conn.Begin(tb.Context())
	if err != nil {
		tb.Fatal(err)
	}
	defer func() { _ = tx.Rollback(tb.Context()) }() // after Commit it is over
	var from int64
	if err := tx.QueryRow(tb.Context(), "select compacted from stream_counter where org = $1 and env = $2", string(scope.Org), int16(scope.Env)).Scan(&from); err != nil {
		tb.Fatal(err)
	}
	list := hotLines(tb, conn, scope, from, below)
	slices.SortFunc(list, func(a, b hotLine) int {
		return cmp.Or(a.day.Compare(b.day), cmp.Compare(a.entry.Session, b.entry.Session), cmp.Compare(a.entry.Agent, b.entry.Agent),
			a.entry.Timestamp.Compare(b.entry.Timestamp), cmp.Compare(a.at.Position, b.at.Position))
	})
	var w segment.ChunkWriter
	for len(list) > 0 {
		odd, day := false, list[0].day
		for len(list) > 0 && w.Lines() < size && list[0].day.Equal(day) {
			w.Append(list[0].lines, list[0].i, list[0].at)
			odd = odd || list[0].odd
			list = list[1:]
		}
		insertChunk(tb, tx, scope, day, odd, w.Encode())
	}
	if _, err := tx.Exec(tb.Context(), "update stream_counter set compacted = $3 where org = $1 and env = $2", string(scope.Org), int16(scope.Env), below); err != nil {
		tb.Fatal(err)
	}
	if err := tx.Commit(tb.Context()); err != nil {
		tb.Fatal(err)
	}
}

func insertChunk(tb testing.TB, tx pgx.Tx, scope telemetry.Scope, day time.Time, odd bool, c *segment.Chunk) {
	tb.Helper()
	clamp := func(t time.Time) time.Time {
		if lo := time.Date(1, 1, 2, 0, 0, 0, 0, time.UTC); t.Before(lo) {
			return lo
		}
		if hi := time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC); t.After(hi) {
			return hi
		}
		return t
	}
	data := func(c segment.Column, columns *[segment.NumColumns][]byte) []byte {
		return append([]byte{}, columns[c]...)
	}
	if _, err := tx.Exec(tb.Context(), `insert into log_chunk (org, env, class, day, id, last, n, l0, l1, l2, l3, raw, t0, t1, recv0, recv1, odd, session_lo, session_hi, agents, sessions,
counts, bloom, head, c_time, c_flags, c_origin, c_message, c_metadata, c_trace, c_place, owners)
values ($1, $2, 0, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25, $26, $27, $28, $29, $30, $31)`,
		string(scope.Org), int16(scope.Env), day, c.First, c.Last, c.Row.Lines, c.Levels[0], c.Levels[1], c.Levels[2], c.Levels[3], c.RawBytes,
		clamp(c.Min), clamp(c.Max), c.Observed0, c.Observed1, odd, c.SessionLo, c.SessionHi, c.Agents, c.Sessions, c.Counts, c.Bloom, c.Head,
		data(segment.Time, &c.Columns), data(segment.Flags, &c.Columns), data(segment.Origin, &c.Columns), data(segment.Message, &c.Columns),
		data(segment.Metadata, &c.Columns), data(segment.Trace, &c.Columns), c.Places, c.Owners); err != nil {
		tb.Fatal(err)
	}
}
