package store_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/theazo/observability/aggregator/store"
	"github.com/theazo/observability/aggregator/store/storetest"
	"github.com/theazo/observability/shared/frame"
	"github.com/theazo/observability/shared/telemetry"
)

// BenchmarkCompact compacts lines that came in frames of a size, and reports
// the CPU of both sides and what is stored.
func BenchmarkCompact(b *testing.B) {
	for _, shape := range []struct{ orgs, commits, lines int }{{20, 40, 250}, {1, 40, 4000}, {1000, 10, 1}} {
		b.Run(fmt.Sprintf("orgs=%d/commits=%d/lines=%d", shape.orgs, shape.commits, shape.lines), func(b *testing.B) {
			db := storetest.New(b)
			s, err := store.Open(b.Context(), store.Options{DSN: db.DSN})
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			conn := db.Connect(b)
			rnd := rand.New(rand.NewPCG(1, 2))
			spools := make([]*spool, shape.orgs)
			for o := range spools {
				spools[o] = newSpool(telemetry.Scope{Org: telemetry.OrgID(fmt.Sprintf("org_%d", o))}, "nod_1", 1)
			}
			fill := func() {
				for i := range shape.commits {
					var batch []*frame.Received
					for _, sp := range spools {
						batch = append(batch, benchFrames(b, sp, rnd, 1, shape.lines, time.Now().Add(time.Duration(i)*time.Second))...)
					}
					if _, _, err := s.Commit(b.Context(), batch); err != nil {
						b.Fatal(err)
					}
				}
			}
			var server, own time.Duration
			for b.Loop() {
				b.StopTimer()
				fill()
				serverBefore, ownBefore := backendCPU(b, conn), ownCPU()
				b.StartTimer()
				if err := s.Compact(b.Context()); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				server += backendCPU(b, conn) - serverBefore
				own += ownCPU() - ownBefore
				b.StartTimer()
			}
			lines := float64(b.N * shape.orgs * shape.commits * shape.lines)
			var size, chunks int64
			if err := conn.QueryRow(b.Context(), `select sum(pg_total_relation_size(inhrelid))::bigint, (select count(*) from log_chunk) from pg_inherits where inhparent = 'log_chunk'::regclass`).Scan(&size, &chunks); err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64(server.Nanoseconds())/1000/lines, "backend-us/line")
			b.ReportMetric(float64(own.Nanoseconds())/1000/lines, "own-us/line")
			b.ReportMetric(float64(size)/lines, "B/line")
			b.ReportMetric(lines/float64(chunks), "lines/chunk")
			b.ReportMetric(lines/b.Elapsed().Seconds(), "lines/s")
		})
	}
}
