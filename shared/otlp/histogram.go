package otlp

import (
	"math"

	"github.com/theazo/observability/shared/telemetry"
)

// maxRead is how many buckets are read before they are merged or given up.
const maxRead = 8192

// distribution is what both kinds of histograms have.
type distribution struct {
	pointHead
	count    uint64
	sum      float64
	min, max *float64
	tooLong  bool // a list of buckets
}

// distributionKind is that of a histogram's points.
func (h *metricHead) distributionKind() telemetry.MetricKind {
	if h.temporality == delta {
		return telemetry.Distribution
	}
	return telemetry.CumulativeDistribution
}

// bound is a smallest or largest value; nil where it is none.
func bound(f float64) *float64 {
	if !finite(f) {
		return nil
	}
	return &f
}

// grow adds one number to a list, as far as lists are read.
func grow[T uint64 | float64](list []T, v T, d *distribution) []T {
	if len(list) == maxRead {
		d.tooLong = true
		return list
	}
	return append(list, v)
}

// histogram takes a point with buckets of stated bounds.
func (d *decoder) histogram(h *metricHead, n node) {
	p := distribution{pointHead: pointHead{attributes: d.own.again()}}
	var counts []uint64
	var bounds []float64
	for c := n.walk(histogramPoint); c.next(); {
		switch c.number {
		case 2:
			p.start = c.uint()
		case 3:
			p.time = c.uint()
		case 4:
			p.count = c.uint()
		case 5:
			p.sum = c.float()
		case 6:
			counts = grow(counts, c.uint(), &p)
		case 7:
			bounds = grow(bounds, c.float(), &p)
		case 9:
			d.attribute(p.attributes, c.node)
		case 10:
			p.flags = c.uint()
		case 11:
			p.min = bound(c.float())
		case 12:
			p.max = bound(c.float())
		}
	}
	if !d.sound(&p) {
		return
	}
	if !rising(bounds) || len(counts) > 0 && len(counts) != len(bounds)+1 || len(counts) == 0 && len(bounds) > 0 || !adds(p.count, counts) {
		d.refuse(BadBuckets)
		return
	}
	if len(counts) > telemetry.MaxMetricBuckets {
		d.res.Dropped[DroppedBuckets]++
		counts, bounds = nil, nil
	}
	d.taken(h, &p.pointHead, telemetry.MetricPoint{
		Kind: h.distributionKind(), Value: p.sum,
		Histogram: &telemetry.Histogram{Count: p.count, Min: p.min, Max: p.max, Bounds: bounds, Counts: counts},
	})
}

// sound reports whether a histogram's point is one that can be taken.
func (d *decoder) sound(p *distribution) bool {
	switch {
	case p.flags&noRecordedValue != 0:
		d.res.Dropped[NoRecorded]++
	case p.tooLong:
		d.refuse(BadBuckets)
	case !finite(p.sum):
		d.refuse(NotFinite)
	default:
		return true
	}
	return false
}

func rising(bounds []float64) bool {
	for i, b := range bounds {
		if !finite(b) || i > 0 && b <= bounds[i-1] {
			return false
		}
	}
	return true
}

// adds reports whether the buckets add up to the count; without any they need not.
func adds(count uint64, lists ...[]uint64) bool {
	total, some := uint64(0), false
	for _, list := range lists {
		for _, c := range list {
			if total+c < total {
				return false
			}
			total += c
			some = true
		}
	}
	return !some || total == count
}

// exponential takes a point with buckets of growing width.
func (d *decoder) exponential(h *metricHead, n node) {
	p := distribution{pointHead: pointHead{attributes: d.own.again()}}
	var e telemetry.Exponential
	var scale int64
	var positive, negative buckets
	for c := n.walk(exponentialPoint); c.next(); {
		switch c.number {
		case 1:
			d.attribute(p.attributes, c.node)
		case 2:
			p.start = c.uint()
		case 3:
			p.time = c.uint()
		case 4:
			p.count = c.uint()
		case 5:
			p.sum = c.float()
		case 6:
			scale = c.int()
		case 7:
			e.ZeroCount = c.uint()
		case 8:
			positive = d.buckets(c.node, &p)
		case 9:
			negative = d.buckets(c.node, &p)
		case 10:
			p.flags = c.uint()
		case 12:
			p.min = bound(c.float())
		case 13:
			p.max = bound(c.float())
		case 14:
			e.ZeroThreshold = c.float()
		}
	}
	if !d.sound(&p) {
		return
	}
	if !finite(e.ZeroThreshold) || e.ZeroThreshold < 0 || scale < minScale || scale > maxScale ||
		!positive.sane() || !negative.sane() || !adds(p.count, positive.counts, negative.counts, []uint64{e.ZeroCount}) {
		d.refuse(BadBuckets)
		return
	}
	if positive.tooMany(negative) {
		d.res.Dropped[Downscaled]++
	}
	for positive.tooMany(negative) {
		positive.merge()
		negative.merge()
		scale--
	}
	e.Scale = int32(scale)                                                 // within minScale-13 and maxScale
	e.PositiveOffset, e.Positive = int32(positive.offset), positive.counts //nolint:gosec // sane
	e.NegativeOffset, e.Negative = int32(negative.offset), negative.counts //nolint:gosec // sane
	d.taken(h, &p.pointHead, telemetry.MetricPoint{
		Kind: h.distributionKind(), Value: p.sum,
		Histogram: &telemetry.Histogram{Count: p.count, Min: p.min, Max: p.max, Exponential: &e},
	})
}

// Scales that stand for something: OpenTelemetry's emitters keep to -10 and 20.
const (
	minScale = -16
	maxScale = 32
)

// buckets are those of one side of zero.
type buckets struct {
	offset int64
	counts []uint64
}

func (d *decoder) buckets(n node, p *distribution) (b buckets) {
	for c := n.walk(bucketsMessage); c.next(); {
		switch c.number {
		case 1:
			b.offset = c.int()
		case 2:
			b.counts = grow(b.counts, c.uint(), p)
		}
	}
	return b
}

func (b buckets) sane() bool { return b.offset >= math.MinInt32 && b.offset <= math.MaxInt32-maxRead }

func (b buckets) tooMany(other buckets) bool {
	return max(len(b.counts), len(other.counts)) > telemetry.MaxMetricBuckets
}

// merge makes one bucket of each two, which is what the next smaller scale has.
func (b *buckets) merge() {
	if len(b.counts) == 0 {
		b.offset >>= 1
		return
	}
	first, last := b.offset>>1, (b.offset+int64(len(b.counts))-1)>>1
	merged := make([]uint64, last-first+1)
	for i, c := range b.counts {
		merged[(b.offset+int64(i))>>1-first] += c
	}
	b.offset, b.counts = first, merged
}
