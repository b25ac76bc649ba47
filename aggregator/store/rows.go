package store

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/theazo/observability/shared/frame"
	"github.com/theazo/observability/shared/segment"
	"github.com/theazo/observability/shared/telemetry"
)

// What a commit writes, one statement for all rows of a table: rows travel as
// arrays, one per column.

func (b *batch) queueMarks(q *pgx.Batch) {
	var u, n struct {
		orgs, nodes                            []string
		epochs, seqs                           []int64
		lanes                                  []int16
		bases, visible, quarantined, lostCount []int64
	}
	for _, m := range b.marks {
		if !m.changed {
			continue
		}
		to := &u
		if !m.known {
			to = &n
		}
		to.orgs, to.nodes = append(to.orgs, string(m.org)), append(to.nodes, string(m.node))
		to.epochs, to.seqs = append(to.epochs, int64(m.epoch)), append(to.seqs, int64(m.seq)) //nolint:gosec // 64 bits are 64 bits; sequences are below 2^40
		to.lanes, to.bases = append(to.lanes, int16(m.lane)), append(to.bases, int64(m.base)) //nolint:gosec // below 2^40
		to.visible, to.quarantined, to.lostCount = append(to.visible, m.visible), append(to.quarantined, m.quarantined), append(to.lostCount, m.lost)
	}
	if len(u.orgs) > 0 {
		q.Queue(updateMarks, u.orgs, u.nodes, u.epochs, u.lanes, u.seqs, u.visible, u.quarantined, u.lostCount)
	}
	if len(n.orgs) > 0 {
		q.Queue(insertMarks, n.orgs, n.nodes, n.epochs, n.lanes, n.seqs, n.visible, n.quarantined, n.lostCount, n.bases)
	}
}

const updateMarks = `update ingest_mark m
set seq = u.seq, counted = u.seq, base = m.base + m.seq - m.counted, visible = m.visible + u.visible, quarantined = m.quarantined + u.quarantined, lost = m.lost + u.lost
from unnest($1::text[], $2::text[], $3::bigint[], $4::smallint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[])
  u (org, node, epoch, lane, seq, visible, quarantined, lost)
where m.org = u.org and m.node = u.node and m.epoch = u.epoch and m.lane = u.lane`

// A mark that another aggregator makes at the same time is a unique violation,
// which starts the commit again: "on conflict" would hide whose records won.
const insertMarks = `insert into ingest_mark (org, node, epoch, lane, seq, counted, visible, quarantined, lost, base)
select org, node, epoch, lane, seq, seq, visible, quarantined, lost, base
from unnest($1::text[], $2::text[], $3::bigint[], $4::smallint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[], $9::bigint[])
  u (org, node, epoch, lane, seq, visible, quarantined, lost, base)
order by org, node, epoch, lane`

func (b *batch) queueCounters(q *pgx.Batch) {
	n := len(b.scopes)
	orgs, envs := make([]string, 0, n), make([]int16, 0, n)
	counts, aheads, rows, raws := make([]int64, 0, n), make([]int64, 0, n), make([]int64, 0, n), make([]int64, 0, n)
	sinces := make(pgtype.FlatArray[*time.Time], 0, n)
	for _, sc := range b.scopes {
		if records := sc.count(); records > 0 {
			orgs, envs = append(orgs, string(sc.scope.Org)), append(envs, int16(sc.scope.Env))
			counts, aheads = append(counts, records), append(aheads, sc.ahead)
			rows, raws, sinces = append(rows, sc.hotRows), append(raws, sc.hotRaw), append(sinces, nullTime(sc.since))
		}
	}
	if len(orgs) == 0 {
		return
	}
	q.Queue(advanceCounters, orgs, envs, counts, aheads, rows, raws, sinces).Query(func(rows pgx.Rows) error {
		var org string
		var env int16
		var next, erasures int64
		_, err := pgx.ForEachRow(rows, []any{&org, &env, &next, &erasures}, func() error {
			sc := b.scopeOf[telemetry.Scope{Org: telemetry.OrgID(org), Env: telemetry.Environment(env)}] //nolint:gosec // 0 or 1
			sc.next, sc.erasures = next, erasures
			return nil
		})
		return err
	})
}

const advanceCounters = `insert into stream_counter as s (org, env, next, ahead, hot_rows, hot_raw, hot_since)
select org, env, 1 + n, ahead, hot_rows, hot_raw, hot_since
from unnest($1::text[], $2::smallint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::timestamptz[]) u (org, env, n, ahead, hot_rows, hot_raw, hot_since)
order by org, env
on conflict (org, env) do update set next = s.next + excluded.next - 1, ahead = greatest(s.ahead, excluded.ahead),
  hot_rows = s.hot_rows + excluded.hot_rows, hot_raw = s.hot_raw + excluded.hot_raw, hot_since = coalesce(s.hot_since, excluded.hot_since)
returning org, env, next, erasures`

// maxListed bounds the lists of agents and sessions of a row; a row of more is
// looked into by every query of its time.
const maxListed = 256

func (b *batch) queueLines(q *pgx.Batch) {
	n := len(b.scopes) // of rows, nearly always
	orgs, envs := make([]string, 0, n), make([]int16, 0, n)
	backs, raws := make([]int64, 0, n), make([]int64, 0, n)
	recvs, t0s, t1s := make([]time.Time, 0, n), make([]time.Time, 0, n), make([]time.Time, 0, n)
	agents, sessions := make(pgtype.FlatArray[*string], 0, n), make(pgtype.FlatArray[*string], 0, n)
	var counts [1 + telemetry.NumLevels][]int32
	for i := range counts {
		counts[i] = make([]int32, 0, n)
	}
	var blobs [1 + segment.NumColumns][][]byte
	for i := range blobs {
		blobs[i] = make([][]byte, 0, n)
	}
	for _, sc := range b.scopes {
		back := sc.count()
		for parts := range sc.rows() {
			list := make([]segment.Part, len(parts))
			for i := range parts {
				list[i] = parts[i].part
			}
			row := segment.Join(list)
			orgs, envs, backs = append(orgs, string(sc.scope.Org)), append(envs, int16(sc.scope.Env)), append(backs, back)
			back -= int64(row.Lines)
			recvs = append(recvs, clampTime(parts[0].recv))
			t0s, t1s, raws = append(t0s, clampTime(row.Min)), append(t1s, clampTime(row.Max)), append(raws, int64(row.RawBytes))
			a, s := listed(list)
			agents, sessions = append(agents, a), append(sessions, s)
			counts[0] = append(counts[0], int32(row.Lines)) //nolint:gosec // a count of lines
			for l, n := range row.Levels {
				counts[1+l] = append(counts[1+l], int32(n)) //nolint:gosec // a count of lines
			}
			blobs[0] = append(blobs[0], row.Head)
			for c, data := range row.Columns {
				if data == nil {
					data = []byte{} // null is for columns that were not loaded
				}
				blobs[1+c] = append(blobs[1+c], data)
			}
		}
	}
	if len(orgs) == 0 {
		return
	}
	q.Queue(insertLines, orgs, envs, backs, recvs, t0s, t1s, counts[0], counts[1], counts[2], counts[3], counts[4], raws, agents, sessions,
		blobs[0], blobs[1], blobs[2], blobs[3], blobs[4], blobs[5], blobs[6])
}

const insertLines = `insert into log_hot (org, env, pos, n, recv_at, t0, t1, l0, l1, l2, l3, raw, agents, sessions,
  head, c_time, c_flags, c_origin, c_message, c_metadata, c_trace)
select u.org, u.env, s.next - u.back, u.n, u.recv_at, u.t0, u.t1, u.l0, u.l1, u.l2, u.l3, u.raw, u.agents::text[], u.sessions::text[],
  u.head, u.c_time, u.c_flags, u.c_origin, u.c_message, u.c_metadata, u.c_trace
from unnest($1::text[], $2::smallint[], $3::bigint[], $4::timestamptz[], $5::timestamptz[], $6::timestamptz[],
    $7::int[], $8::int[], $9::int[], $10::int[], $11::int[], $12::bigint[], $13::text[], $14::text[],
    $15::bytea[], $16::bytea[], $17::bytea[], $18::bytea[], $19::bytea[], $20::bytea[], $21::bytea[])
  as u (org, env, back, recv_at, t0, t1, n, l0, l1, l2, l3, raw, agents, sessions,
    head, c_time, c_flags, c_origin, c_message, c_metadata, c_trace)
  join stream_counter s on s.org = u.org and s.env = u.env`

// listed returns the agents and sessions of a row as array literals; nil where
// there are too many.
func listed(parts []segment.Part) (agents, sessions *string) {
	a, s := map[string]struct{}{}, map[string]struct{}{}
	for i := range parts {
		for j := range parts[i].Origins {
			o := &parts[i].Origins[j]
			a[string(o.Agent)] = struct{}{}
			if o.Session != "" {
				s[string(o.Session)] = struct{}{}
			}
		}
		if len(a) > maxListed && len(s) > maxListed {
			break
		}
	}
	return arrayLiteral(a), arrayLiteral(s)
}

func arrayLiteral(set map[string]struct{}) *string {
	if len(set) > maxListed {
		return nil
	}
	var b strings.Builder
	b.WriteByte('{')
	for id := range set {
		if b.Len() > 1 {
			b.WriteByte(',')
		}
		b.WriteByte('"')
		for i := range len(id) {
			if id[i] == '"' || id[i] == '\\' {
				b.WriteByte('\\')
			}
			b.WriteByte(id[i])
		}
		b.WriteByte('"')
	}
	b.WriteByte('}')
	text := b.String()
	return &text
}

func (b *batch) queueGaps(q *pgx.Batch) {
	var orgs, nodes, reasons, agents, sessions, sandboxes, details []string
	var envs, lanes []int16
	var backs, epochs, counts, sizes, firsts, lasts []int64
	var recvs []time.Time
	var since, until []*time.Time
	for _, sc := range b.scopes {
		for i := range sc.gaps {
			g := &sc.gaps[i]
			orgs, envs, backs = append(orgs, string(sc.scope.Org)), append(envs, int16(sc.scope.Env)), append(backs, int64(len(sc.gaps)-i))
			recvs, nodes, lanes = append(recvs, clampTime(g.ObservedAt)), append(nodes, string(g.Node)), append(lanes, int16(g.lane))
			epochs, reasons = append(epochs, int64(g.epoch)), append(reasons, string(g.Reason)) //nolint:gosec // 64 bits are 64 bits
			counts, sizes = append(counts, g.Count), append(sizes, g.Bytes)
			since, until = append(since, nullTime(g.Since)), append(until, nullTime(g.Until))
			firsts, lasts = append(firsts, int64(g.FirstSeq)), append(lasts, int64(g.LastSeq)) //nolint:gosec // kept as bits
			agents, sessions, sandboxes = append(agents, string(g.Agent)), append(sessions, string(g.Session)), append(sandboxes, string(g.Sandbox))
			details = append(details, g.Detail)
		}
	}
	if len(orgs) > 0 {
		q.Queue(insertGaps, orgs, envs, backs, recvs, nodes, lanes, epochs, reasons, counts, sizes, since, until, firsts, lasts, agents, sessions, sandboxes, details)
	}
}

const insertGaps = `insert into gap (org, env, pos, recv_at, node, lane, epoch, reason, count, bytes, since, until, first_seq, last_seq, agent, session, sandbox, detail)
select u.org, u.env, s.next - u.back, u.recv_at, u.node, u.lane, u.epoch, u.reason, u.count, u.bytes, u.since, u.until, u.first_seq, u.last_seq,
  u.agent, u.session, u.sandbox, u.detail
from unnest($1::text[], $2::smallint[], $3::bigint[], $4::timestamptz[], $5::text[], $6::smallint[], $7::bigint[], $8::text[], $9::bigint[], $10::bigint[],
    $11::timestamptz[], $12::timestamptz[], $13::bigint[], $14::bigint[], $15::text[], $16::text[], $17::text[], $18::text[])
  as u (org, env, back, recv_at, node, lane, epoch, reason, count, bytes, since, until, first_seq, last_seq, agent, session, sandbox, detail)
  join stream_counter s on s.org = u.org and s.env = u.env`

func attributesJSON(attributes map[string]string) string {
	clean := make(map[string]string, len(attributes))
	for k, v := range attributes {
		clean[cleanText(k)] = cleanText(v)
	}
	text, err := json.Marshal(clean)
	if err != nil {
		panic("store: a map of strings always has a JSON form: " + err.Error())
	}
	return string(text)
}

func (b *batch) queueQuarantine(q *pgx.Batch) {
	for _, f := range b.quarantined {
		q.Queue(`insert into quarantine (org, env, node, epoch, lane, first_seq, count, recv_at, reason, body)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)`,
			string(f.Org), int16(f.Env), string(f.Node), int64(f.Epoch), int16(f.Lane), int64(f.First), int64(f.Count), //nolint:gosec // 64 bits are 64 bits; sequences are below 2^40
			clampTime(b.received(f)), cleanText(quarantineReason(f)), append([]byte{}, f.Body...))
	}
}

func quarantineReason(f *frame.Received) string {
	if f.Quarantine == "" {
		return fmt.Sprintf("%d records are of kinds that this release does not know; the others were taken", f.Unknown)
	}
	return f.Quarantine
}

// nullTime stores the zero time as null.
func nullTime(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = clampTime(t)
	return &t
}
