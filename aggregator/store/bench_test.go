package store_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/jackc/pgx/v5"

	"github.com/theazo/observability/aggregator/store"
	"github.com/theazo/observability/aggregator/store/storetest"
	"github.com/theazo/observability/shared/frame"
	"github.com/theazo/observability/shared/segment"
	"github.com/theazo/observability/shared/telemetry"
)

// benchFrames makes frames of lines as agents write them, about 110 bytes each.
func benchFrames(b *testing.B, sp *spool, rnd *rand.Rand, frames, lines int, from time.Time) []*frame.Received {
	b.Helper()
	words := strings.Fields("request step tool call model answer tokens timeout retry session browser page click fetch parse plan result cache miss")
	list := make([]*frame.Received, frames)
	for i := range list {
		entries := make([]telemetry.LogEntry, lines)
		for j := range entries {
			agent := rnd.IntN(20)
			entries[j] = telemetry.LogEntry{
				Timestamp: from.Add(time.Duration(i*lines+j) * 700 * time.Microsecond), Level: telemetry.Level(rnd.IntN(4)),
				Message: fmt.Sprintf("%s %s %d in %dms id=%016x %s of %s: %s", words[rnd.IntN(len(words))], words[rnd.IntN(len(words))], rnd.IntN(1000), rnd.IntN(5000),
					rnd.Uint64(), words[rnd.IntN(len(words))], words[rnd.IntN(len(words))], "the quick brown agent jumps over the lazy sandbox again"),
				Origin: telemetry.Origin{
					Agent: telemetry.AgentID(fmt.Sprintf("agt_%020d", agent)), Session: telemetry.SessionID(fmt.Sprintf("ses_%020d", agent/4)),
					User: "user", Provider: telemetry.Docker, Sandbox: telemetry.SandboxID(fmt.Sprintf("box%064d", agent)), Stream: telemetry.Stdout,
				},
			}
		}
		for k := range entries {
			sp.w.Append(&entries[k])
		}
		f := sp.frame(telemetry.LaneLogs, lines)
		f.Body = sp.w.Encode(nil)
		s, err := segment.Parse(f.Body)
		if err != nil {
			b.Fatal(err)
		}
		f.Segment, list[i] = s, f
	}
	return list
}

// backendCPU is the CPU time that the database's backends have used.
func backendCPU(b *testing.B, conn *pgx.Conn) time.Duration {
	b.Helper()
	rows, err := conn.Query(b.Context(), "select pid from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()")
	if err != nil {
		b.Fatal(err)
	}
	pids, err := pgx.CollectRows(rows, pgx.RowTo[int])
	if err != nil {
		b.Fatal(err)
	}
	ticks := 0
	for _, pid := range pids {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			continue // it has gone
		}
		f := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		user, _ := strconv.Atoi(f[11])
		system, _ := strconv.Atoi(f[12])
		ticks += user + system
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

func ownCPU() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkCommit commits frames of 1,500 lines, as many at a time as its name
// says, and reports the CPU of both sides.
func BenchmarkCommit(b *testing.B) {
	for _, shape := range []struct{ orgs, frames, lines int }{{1, 1, 1}, {1, 1, 1500}, {1, 8, 1500}, {8, 2, 1500}, {20, 1, 250}, {200, 1, 5}, {250, 1, 1}} {
		b.Run(fmt.Sprintf("orgs=%d/frames=%d/lines=%d", shape.orgs, shape.frames, shape.lines), func(b *testing.B) {
			db := storetest.New(b)
			s, err := store.Open(b.Context(), store.Options{DSN: db.DSN})
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			conn := db.Connect(b)
			rnd := rand.New(rand.NewPCG(1, 2))
			var batches [][]*frame.Received
			spools := make([]*spool, shape.orgs)
			for o := range spools {
				spools[o] = newSpool(telemetry.Scope{Org: telemetry.OrgID(fmt.Sprintf("org_%d", o))}, "nod_1", 1)
			}
			for range b.N {
				var batch []*frame.Received
				for _, sp := range spools {
					batch = append(batch, benchFrames(b, sp, rnd, shape.frames, shape.lines, time.Now())...)
				}
				batches = append(batches, batch)
			}
			mustCommit(b, s, newSpool(telemetry.Scope{Org: "org_warm"}, "nod_1", 1).numbered(b, "agt_a", 0, 10, time.Now()))
			server, own := backendCPU(b, conn), ownCPU()
			b.ResetTimer()
			for _, batch := range batches {
				if _, _, err := s.Commit(b.Context(), batch); err != nil {
					b.Fatal(err)
				}
			}
			b.StopTimer()
			lines := float64(b.N * shape.orgs * shape.frames * shape.lines)
			b.ReportMetric(float64((backendCPU(b, conn)-server).Nanoseconds())/1000/lines, "backend-us/line")
			b.ReportMetric(float64((ownCPU()-own).Nanoseconds())/1000/lines, "own-us/line")
			b.ReportMetric(lines/b.Elapsed().Seconds(), "lines/s")
		})
	}
}

// BenchmarkQuery asks an organisation of half a million lines, one hour.
func BenchmarkQuery(b *testing.B) {
	db := storetest.New(b)
	s, err := store.Open(b.Context(), store.Options{DSN: db.DSN})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	scope := telemetry.Scope{Org: "org_a"}
	sp := newSpool(scope, "nod_1", 1)
	rnd := rand.New(rand.NewPCG(1, 2))
	from := time.Now().Add(-time.Hour)
	for i := range 500 {
		mustCommit(b, s, benchFrames(b, sp, rnd, 1, 1000, from.Add(time.Duration(i)*7*time.Second))...)
	}
	agent, session := telemetry.AgentID(fmt.Sprintf("agt_%020d", 7)), telemetry.SessionID(fmt.Sprintf("ses_%020d", 1))
	for _, c := range []struct {
		name string
		q    telemetry.LogQuery
	}{
		{"newest", telemetry.LogQuery{}},
		{"newest-15m", telemetry.LogQuery{Since: from.Add(45 * time.Minute)}},
		{"offset-10000", telemetry.LogQuery{Offset: telemetry.MaxOffset}},
		{"errors", telemetry.LogQuery{LogFilter: telemetry.LogFilter{Levels: []telemetry.Level{telemetry.Error}}}},
		{"session", telemetry.LogQuery{LogFilter: telemetry.LogFilter{Sessions: []telemetry.SessionID{session}}}},
		{"agent-errors", telemetry.LogQuery{LogFilter: telemetry.LogFilter{Agents: []telemetry.AgentID{agent}, Levels: []telemetry.Level{telemetry.Error}}}},
		{"text", telemetry.LogQuery{LogFilter: telemetry.LogFilter{Search: "timeout"}}},
		{"absent-text", telemetry.LogQuery{LogFilter: telemetry.LogFilter{Search: "no such word"}}},
	} {
		b.Run(c.name, func(b *testing.B) {
			c.q.Limit = 100
			var page telemetry.LogPage
			for b.Loop() {
				var err error
				if page, err = s.QueryLogs(b.Context(), scope, &c.q); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(page.Total), "total")
		})
	}
	b.Run("stream", func(b *testing.B) {
		for b.Loop() {
			if _, err := s.ReadStream(b.Context(), scope, 499_500, 500); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkStart is what the store adds to the start of an aggregator: with a
// schema that is up to date, and with an empty database.
func BenchmarkStart(b *testing.B) {
	start := func(b *testing.B, db *storetest.Database) {
		b.Helper()
		if err := store.Migrate(b.Context(), db.DSN, hclog.NewNullLogger()); err != nil {
			b.Fatal(err)
		}
		s, err := store.Open(b.Context(), store.Options{DSN: db.DSN})
		if err != nil {
			b.Fatal(err)
		}
		s.Close()
	}
	b.Run("existing", func(b *testing.B) {
		db := storetest.New(b)
		for b.Loop() {
			start(b, db)
		}
	})
	b.Run("new", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			db := storetest.NewEmpty(b)
			b.StartTimer()
			start(b, db)
		}
	})
}
