package intake

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/theazo/observability/shared/frame"
)

// metrics of an Intake. Label values are fixed words.
type metrics struct {
	lines, bytes, events, gaps prometheus.Counter
	spans, modelCalls, points  prometheus.Counter
	marked                     [numMarks]prometheus.Counter
	dropped                    *prometheus.CounterVec
	frames, frameBytes         prometheus.Counter
	appendErrors, held         prometheus.Counter
	appendSeconds              prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Namespace: "agentd", Subsystem: "intake", Name: name, Help: help})
	}
	vector := func(name, label, help string) *prometheus.CounterVec {
		return f.NewCounterVec(prometheus.CounterOpts{Namespace: "agentd", Subsystem: "intake", Name: name, Help: help}, []string{label})
	}
	m := &metrics{
		lines:        counter("lines_total", "Lines taken from sources."),
		bytes:        counter("bytes_total", "Bytes of their text, as read."),
		events:       counter("events_total", "Lifecycle events taken from sources."),
		gaps:         counter("gaps_total", "Gap records taken from sources."),
		spans:        counter("spans_total", "Spans taken from sources."),
		modelCalls:   counter("model_calls_total", "Calls of models taken from sources."),
		points:       counter("metric_points_total", "Metric points taken from sources."),
		dropped:      vector("dropped_total", "reason", "Records that were not taken, by reason."),
		frames:       counter("frames_total", "Frames made durable."),
		frameBytes:   counter("frame_bytes_total", "Bytes of their bodies, encoded."),
		held:         counter("held_total", "Times that a sandbox's lines waited for the rest of a stack trace."),
		appendErrors: counter("append_errors_total", "Attempts to make frames durable that failed."),
		appendSeconds: f.NewHistogram(prometheus.HistogramOpts{
			Namespace: "agentd", Subsystem: "intake", Name: "append_seconds", Help: "Time to make frames durable.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 4, 8),
		}),
	}
	marked := vector("marked_total", "what", "Records that were changed or guessed at, by what was done.")
	for i, name := range markNames {
		m.marked[i] = marked.WithLabelValues(name)
	}
	return m
}

func (m *metrics) appended(frames []frame.Frame, took time.Duration) {
	m.frames.Add(float64(len(frames)))
	bytes := 0
	for i := range frames {
		bytes += len(frames[i].Body)
	}
	m.frameBytes.Add(float64(bytes))
	m.appendSeconds.Observe(took.Seconds())
}

// marks counts what was done to the lines of one batch.
type marks [numMarks]int

type mark uint8

const (
	markTruncated mark = iota
	markCleaned
	markInferred
	markStructured
	markBadID
	markUntimed
	markBadValue
	markBadObject
	markRedacted
	markStripped
	markJoined
	markSampled
	markRawTooLarge
	numMarks
)

var markNames = [numMarks]string{"truncated", "cleaned", "level_inferred", "structured", "bad_id", "without_time", "bad_value", "bad_object", "redacted", "stripped", "joined", "sampled", "raw_too_large"}

func (m *metrics) count(marks *marks) {
	for i, n := range marks {
		if n > 0 {
			m.marked[i].Add(float64(n))
		}
	}
}
