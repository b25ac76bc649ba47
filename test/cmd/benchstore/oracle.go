package main

import (
	"runtime"
	"sync"
	"time"

	"github.com/theazo/observability/shared/telemetry"
	"github.com/theazo/observability/test/workload"
)

// newest is how many lines a page of the benchmark holds.
const newest = 100

// bucketStep of the histogram.
const bucketStep = 5 * time.Minute

// want is a question, and after a look at every line the right answer.
type want struct {
	filter       telemetry.LogFilter
	since, until time.Time
	tenant       int

	count   int64
	last    []int64 // the newest records, oldest first
	buckets map[int64][telemetry.NumLevels]int64
}

// matches is the naive filter.
func (w *want) matches(org int, e *telemetry.LogEntry) bool {
	return org == w.tenant && !e.Timestamp.Before(w.since) && e.Timestamp.Before(w.until) && w.filter.Match(e)
}

func (w *want) add(i int64, e *telemetry.LogEntry) {
	w.count++
	if w.last = append(w.last, i); len(w.last) > 2*newest {
		w.last = append(w.last[:0], w.last[len(w.last)-newest:]...)
	}
	at := e.Timestamp.Truncate(bucketStep).Unix()
	levels := w.buckets[at]
	levels[e.Level]++
	w.buckets[at] = levels
}

// answer finds the right answers by looking at every line, each part of them
// on its own processor.
func answer(d *data, wants []*want) {
	parts := int64(runtime.GOMAXPROCS(0))
	found := make([][]*want, parts)
	var group sync.WaitGroup
	for part := range parts {
		own := make([]*want, len(wants))
		for i, w := range wants {
			own[i] = &want{filter: w.filter, since: w.since, until: w.until, tenant: w.tenant, buckets: map[int64][telemetry.NumLevels]int64{}}
		}
		found[part] = own
		group.Go(func() { look(d, own, d.N*part/parts, d.N*(part+1)/parts) })
	}
	group.Wait()
	for i, w := range wants {
		w.buckets = map[int64][telemetry.NumLevels]int64{}
		for _, own := range found {
			w.count += own[i].count
			w.last = append(w.last, own[i].last...)
			for at, levels := range own[i].buckets {
				sum := w.buckets[at]
				for l, n := range levels {
					sum[l] += n
				}
				w.buckets[at] = sum
			}
		}
		w.last = w.last[max(0, len(w.last)-newest):]
	}
}

func look(d *data, wants []*want, from, to int64) {
	var e telemetry.LogEntry
	var message []byte
	for i := from; i < to; i++ {
		var org int
		org, message = d.At(i, &e, message[:0])
		e.Message = string(message)
		for _, w := range wants {
			if w.matches(d.org(org), &e) {
				w.add(i, &e)
			}
		}
	}
}

// record is line i as the API should give it.
func record(d *workload.Records, i int64) telemetry.LogEntry {
	var e telemetry.LogEntry
	_, message := d.At(i, &e, nil)
	e.Message = string(message)
	return e
}
