package otlp

import (
	"math"
	"strconv"
	"time"

	"github.com/theazo/observability/shared/telemetry"
)

// Fields of metricMessage that hold points.
const (
	gauge                = 5
	sum                  = 7
	histogram            = 9
	exponentialHistogram = 10
	summary              = 11
)

// Values of aggregationTemporality.
const (
	delta      = 1
	cumulative = 2
)

// noRecordedValue is the flag of a point that says only that there is none.
const noRecordedValue = 1

// metricHead is what the points of one metric share.
type metricHead struct {
	name, unit  string
	data        int // field number of the kind
	temporality uint64
	monotonic   bool
}

// metric takes the points of one metric. All else is looked up first, because
// fields may come in any order.
func (d *decoder) metric(n node) {
	var head metricHead
	for c := n.walk(metricMessage); c.next(); {
		switch c.number {
		case 1:
			head.name = clean(c.text())
		case 3:
			head.unit = d.short(c.text(), maxUnit)
		default:
			head.read(c.number, c.node)
		}
	}
	if head.data == 0 {
		d.res.Refused[NoData]++
		return
	}
	for c := n.walk(metricMessage); c.next(); {
		if c.number != head.data {
			continue
		}
		for c := c.walk(metricData); c.next(); {
			if c.number == 1 {
				d.point(&head, c.node)
			}
		}
	}
}

// read reads what a metric's data say beside the points.
func (h *metricHead) read(data int, n node) {
	h.data = data
	for c := n.walk(metricData); c.next(); {
		switch {
		case c.number == 2 && data != gauge && data != summary:
			h.temporality = c.uint()
		case c.number == 3 && data == sum:
			h.monotonic = c.isTrue()
		}
	}
}

// countPoints counts the points of a metric that is refused.
func countPoints(n node) (count int) {
	for c := n.walk(metricMessage); c.next(); {
		if c.number < gauge || c.number > summary {
			continue
		}
		for c := c.walk(metricData); c.next(); {
			if c.number == 1 {
				count++
			}
		}
	}
	return max(count, 1)
}

// refuse counts a point that is not taken.
func (d *decoder) refuse(why Reason) { d.res.Refused[why]++ }

func (d *decoder) point(h *metricHead, n node) {
	if !d.room() {
		return
	}
	switch {
	case h.name == "" || len(h.name) > telemetry.MaxMetricName:
		d.refuse(NoName)
		return
	case h.data != gauge && h.data != summary && h.temporality != delta && h.temporality != cumulative:
		d.refuse(NoTemporality)
		return
	}
	switch h.data {
	case histogram:
		d.histogram(h, n)
	case exponentialHistogram:
		d.exponential(h, n)
	case summary:
		d.summary(h, n)
	default:
		d.number(h, n)
	}
}

// pointHead is what points of all kinds have.
type pointHead struct {
	start, time uint64
	attributes  *attributes
	flags       uint64
}

// taken completes a point and adds it. Attributes that do not fit are dropped:
// the series that they told apart become one.
func (d *decoder) taken(h *metricHead, p *pointHead, m telemetry.MetricPoint) {
	m.Name, m.Unit, m.Origin = h.name, h.unit, d.scope.origin
	m.Attributes = d.labels(p.attributes)
	d.pointTimes(p, &m)
	size := 320 + len(m.Name)
	for k, v := range m.Attributes {
		size += 64 + len(k) + len(v)
	}
	if m.Histogram != nil {
		size += 128 + 8*(len(m.Histogram.Bounds)+len(m.Histogram.Counts))
		if e := m.Histogram.Exponential; e != nil {
			size += 128 + 8*(len(e.Positive)+len(e.Negative))
		}
	}
	d.res.Bytes += size
	d.res.Metrics = append(d.res.Metrics, m)
}

func (d *decoder) pointTimes(p *pointHead, m *telemetry.MetricPoint) {
	var ok bool
	if m.Timestamp, ok = d.time(p.time); !ok {
		m.Timestamp = d.Received
		d.missed(p.time)
	}
	if m.Start, ok = d.time(p.start); !ok || m.Start.After(m.Timestamp) {
		m.Start = time.Time{}
	}
}

// labels are the attributes of a point as texts.
func (d *decoder) labels(a *attributes) map[string]string {
	if d.scope.service != "" {
		a.set("service.name", d.scope.service)
	}
	if len(a.list) == 0 {
		return nil
	}
	labels := make(map[string]string, min(len(a.list), telemetry.MaxMetricAttributes))
	for i := range a.list {
		e := &a.list[i]
		if len(labels) == telemetry.MaxMetricAttributes || len(e.key) > maxMetricKey {
			d.res.Dropped[Attributes]++
			continue
		}
		labels[e.key] = d.short(e.plain(), maxMetricValue)
	}
	return labels
}

func finite(f float64) bool { return !math.IsNaN(f) && !math.IsInf(f, 0) }

// number takes a point of a gauge or sum.
func (d *decoder) number(h *metricHead, n node) {
	p := pointHead{attributes: d.own.again()}
	value, given := 0.0, false
	for c := n.walk(numberPoint); c.next(); {
		switch c.number {
		case 2:
			p.start = c.uint()
		case 3:
			p.time = c.uint()
		case 4:
			value, given = c.float(), true
		case 6:
			value, given = float64(c.int()), true
		case 7:
			d.attribute(p.attributes, c.node)
		case 8:
			p.flags = c.uint()
		}
	}
	switch {
	case p.flags&noRecordedValue != 0:
		d.res.Dropped[NoRecorded]++
	case !given:
		d.refuse(NoData)
	case !finite(value):
		d.refuse(NotFinite)
	default:
		d.taken(h, &p, telemetry.MetricPoint{Kind: h.numberKind(), Value: value})
	}
}

// numberKind: a sum that may fall, told from its beginning, is a level like a gauge's.
func (h *metricHead) numberKind() telemetry.MetricKind {
	switch {
	case h.data == sum && h.temporality == delta:
		return telemetry.Delta
	case h.data == sum && h.monotonic:
		return telemetry.Cumulative
	}
	return telemetry.Gauge
}

// maxQuantiles of one summary point.
const maxQuantiles = 16

// summary takes a point that an emitter has summed up itself: its count and sum
// as counters, and a gauge for each quantile.
func (d *decoder) summary(h *metricHead, n node) {
	p := pointHead{attributes: d.own.again()}
	var count uint64
	total := 0.0
	type quantile struct{ of, value float64 }
	var quantiles []quantile
	for c := n.walk(summaryPoint); c.next(); {
		switch c.number {
		case 2:
			p.start = c.uint()
		case 3:
			p.time = c.uint()
		case 4:
			count = c.uint()
		case 5:
			total = c.float()
		case 6:
			var q quantile
			for c := c.walk(quantileValue); c.next(); {
				switch c.number {
				case 1:
					q.of = c.float()
				case 2:
					q.value = c.float()
				}
			}
			if !finite(q.value) || !(q.of >= 0 && q.of <= 1) || len(quantiles) == maxQuantiles {
				d.res.Dropped[Quantiles]++
				continue
			}
			quantiles = append(quantiles, q)
		case 7:
			d.attribute(p.attributes, c.node)
		case 8:
			p.flags = c.uint()
		}
	}
	switch {
	case p.flags&noRecordedValue != 0:
		d.res.Dropped[NoRecorded]++
		return
	case !finite(total):
		d.refuse(NotFinite)
		return
	case len(h.name) > telemetry.MaxMetricName-len(".count"):
		d.refuse(NoName)
		return
	}
	part := *h
	part.name, part.unit = h.name+".count", "1"
	d.taken(&part, &p, telemetry.MetricPoint{Kind: telemetry.Cumulative, Value: float64(count)})
	part.name, part.unit = h.name+".sum", h.unit
	d.taken(&part, &p, telemetry.MetricPoint{Kind: telemetry.Cumulative, Value: total})
	own := p.attributes.list
	for _, q := range quantiles {
		p.attributes.list = append([]attribute{textAttribute("quantile", strconv.FormatFloat(q.of, 'g', -1, 64))}, own...)
		d.taken(h, &p, telemetry.MetricPoint{Kind: telemetry.Gauge, Value: q.value})
	}
}
