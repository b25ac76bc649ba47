package wire

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/theazo/observability/shared/telemetry"
)

// Limits of a report.
const (
	maxReport    = 256 << 10 // bytes, encoded: two of them can make a Sequence
	maxSequences = 4096
	maxCounts    = 128
)

// EncodeReport encodes a report, with as many of its first sequences as
// receivers take.
func EncodeReport(r *telemetry.NodeReport) ([]byte, error) {
	p := reportToWire(r)
	for {
		b, err := proto.Marshal(p)
		if err != nil {
			return nil, fmt.Errorf("encode a report: %w", err)
		}
		n := len(p.GetSequences())
		if len(b) <= maxReport || n == 0 {
			return b, nil
		}
		p.Sequences = p.GetSequences()[:n/2]
	}
}

// DecodeReport reads a report and checks every field of it.
func DecodeReport(b []byte) (telemetry.NodeReport, error) {
	if len(b) > maxReport {
		return telemetry.NodeReport{}, fmt.Errorf("report of %d bytes: at most %d are taken", len(b), maxReport)
	}
	var p Report
	if err := proto.Unmarshal(b, &p); err != nil {
		return telemetry.NodeReport{}, fmt.Errorf("decode a report: %w", err)
	}
	return reportFromWire(&p)
}

func reportToWire(r *telemetry.NodeReport) *Report {
	p := &Report{
		Now: timeToWire(r.At), StartedAt: timeToWire(r.StartedAt), BufferBytes: uint64(max(r.BufferBytes, 0)), BufferBudget: uint64(max(r.BufferBudget, 0)),
		Oldest: timeToWire(r.Oldest), Counts: r.Counts, Pressure: uint32(min(max(r.Pressure, 0), 1) * 1000),
		Skew: durationpb.New(r.Skew), CanaryLag: durationToWire(r.CanaryLag),
	}
	for i := range r.Sequences[:min(len(r.Sequences), maxSequences)] {
		s := &r.Sequences[i]
		p.Sequences = append(p.Sequences, &Sequence{
			Organisation: string(s.Org), Epoch: s.Epoch, Lane: LaneToWire(s.Lane), Assigned: s.Assigned, Acknowledged: s.Acknowledged, Lost: s.Lost,
		})
	}
	return p
}

func reportFromWire(p *Report) (telemetry.NodeReport, error) {
	const most = 1 << 62
	r := telemetry.NodeReport{
		At: timeFromWire(p.GetNow()), StartedAt: timeFromWire(p.GetStartedAt()), Oldest: timeFromWire(p.GetOldest()),
		BufferBytes: int64(min(p.GetBufferBytes(), most)), BufferBudget: int64(min(p.GetBufferBudget(), most)),
		Counts: p.GetCounts(), Pressure: float64(min(p.GetPressure(), 1000)) / 1000, CanaryLag: durationFromWire(p.GetCanaryLag()),
	}
	if p.GetSkew().IsValid() {
		r.Skew = p.GetSkew().AsDuration().Round(time.Microsecond)
	}
	if len(p.GetSequences()) > maxSequences || len(p.GetCounts()) > maxCounts {
		return r, fmt.Errorf("report of %d sequences and %d counts: at most %d and %d are taken", len(p.GetSequences()), len(p.GetCounts()), maxSequences, maxCounts)
	}
	for reason := range p.GetCounts() {
		if err := telemetry.CheckID(reason); err != nil {
			return r, fmt.Errorf("report: count %.40q %w", reason, err)
		}
	}
	for _, s := range p.GetSequences() {
		lane, err := LaneFromWire(s.GetLane())
		if err != nil {
			return r, fmt.Errorf("report: %w", err)
		}
		if err := checkOptionalID("organisation", s.GetOrganisation()); err != nil {
			return r, fmt.Errorf("report: %w", err)
		}
		if s.GetAssigned() > maxSeq || s.GetAcknowledged() > s.GetAssigned() || s.GetLost() > s.GetAssigned() {
			return r, fmt.Errorf("report: %d assigned, %d acknowledged, %d lost", s.GetAssigned(), s.GetAcknowledged(), s.GetLost())
		}
		r.Sequences = append(r.Sequences, telemetry.Sequence{
			Org: telemetry.OrgID(s.GetOrganisation()), Epoch: s.GetEpoch(), Lane: lane, Assigned: s.GetAssigned(), Acknowledged: s.GetAcknowledged(), Lost: s.GetLost(),
		})
	}
	return r, nil
}
