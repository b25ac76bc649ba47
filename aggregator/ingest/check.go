package ingest

import (
	"fmt"
	"sync"
	"time"

	"github.com/theazo/observability/shared/frame"
	"github.com/theazo/observability/shared/segment"
	"github.com/theazo/observability/shared/telemetry"
	"github.com/theazo/observability/shared/wire"
)

// Times that PostgreSQL stores and JSON prints.
var (
	earliest = time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC)
	latest   = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
)

// check decodes a frame's body and checks every field of it. A body that
// cannot be taken is no error: its frame goes to quarantine, so that what
// comes behind it goes on. unknown counts records of a kind this release does
// not know.
func check(r *frame.Received) (unknown int) {
	return guarded(r, func() (int, error) {
		switch {
		case r.Tombstone:
			return checkTombstone(r)
		case r.Lane == telemetry.LaneLogs:
			return 0, checkLogs(r)
		}
		return checkEvents(r)
	})
}

// guarded runs a check of a frame. A panic in it is a fault of ours that one
// node's bytes have found: it costs that frame, and not the program, which the
// node would stop again with the next attempt.
func guarded(r *frame.Received, check func() (unknown int, err error)) (unknown int) {
	defer func() {
		if p := recover(); p != nil {
			unknown = 0
			quarantine(r, fmt.Sprintf("reading it failed inside the aggregator: %v", p))
		}
	}()
	unknown, err := check()
	if err != nil {
		quarantine(r, err.Error())
	}
	return unknown
}

// quarantine marks a frame as one of which only the bytes can be kept.
func quarantine(r *frame.Received, reason string) {
	const most = 1024
	r.Segment, r.Times, r.Records = nil, nil, telemetry.Records{}
	r.Quarantine = reason[:min(len(reason), most)]
}

func checkEvents(r *frame.Received) (unknown int, err error) {
	r.Records, unknown, err = wire.DecodeRecords(r.Body)
	if err != nil {
		return 0, err
	}
	if n := r.Len() + unknown; n != int(r.Count) {
		return 0, fmt.Errorf("the header says %d records, the body holds %d", r.Count, n)
	}
	return unknown, nil
}

func checkTombstone(r *frame.Received) (unknown int, err error) {
	r.Records, unknown, err = wire.DecodeRecords(r.Body)
	if err != nil {
		return 0, err
	}
	if r.Len() != len(r.Gaps) || len(r.Gaps)+unknown != 1 {
		return 0, fmt.Errorf("a tombstone holds %d records and %d gaps: one gap is wanted", r.Len(), len(r.Gaps))
	}
	return unknown, nil
}

func checkLogs(r *frame.Received) error {
	s, err := segment.ParseOwned(r.Body)
	if err != nil {
		return err
	}
	if s.Lines != int(r.Count) {
		return fmt.Errorf("the header says %d lines, the segment holds %d", r.Count, s.Lines)
	}
	if s.Min.Before(earliest) || s.Max.After(latest) {
		return fmt.Errorf("timestamps from %s to %s cannot be stored", s.Min, s.Max)
	}
	for i := range s.Origins {
		if err := wire.CheckOrigin(&s.Origins[i]); err != nil {
			return fmt.Errorf("origin %d: %w", i, err)
		}
	}
	lines := scratch.Get().(*segment.Lines) //nolint:forcetypeassert // nothing else is put there
	lines.Reset(s)
	if err := lines.DecodeAll(); err != nil {
		return err
	}
	if err := checkLines(lines); err != nil {
		return err
	}
	r.Segment, r.Times = s, frame.OriginTimes(lines)
	if s.DecodedBytes() <= maxScratch {
		lines.Reset(nothing)
		scratch.Put(lines)
	}
	return nil
}

// scratch is memory to decode into: what is decoded here is looked at and
// forgotten. Most lines are shown to nobody before they are compacted.
var scratch = sync.Pool{New: func() any { return &segment.Lines{} }}

// maxScratch is what is worth keeping.
const maxScratch = 4 << 20

var nothing = &segment.Segment{}

// checkLines checks what a segment's codec leaves to its callers: sizes, the
// sum that is billed, and text that others print without a look.
func checkLines(l *segment.Lines) error {
	sum := 0
	for i := range l.Segment.Lines {
		n := len(l.Message(i))
		if n > telemetry.MaxMessage {
			return fmt.Errorf("line %d: a message of %d bytes: at most %d are taken", i, n, telemetry.MaxMessage)
		}
		sum += n
	}
	// Most segments have neither: no need to put their entries together.
	if l.Encoded(segment.Metadata) != nil || l.Encoded(segment.Trace) != nil {
		var e telemetry.LogEntry
		for i := range l.Segment.Lines {
			l.Entry(i, &e)
			if err := telemetry.CheckObject(e.Metadata, telemetry.MaxMetadata); err != nil {
				return fmt.Errorf("line %d: metadata %w", i, err)
			}
			if err := checkTrace(&e); err != nil {
				return fmt.Errorf("line %d: %w", i, err)
			}
			sum += len(e.Metadata)
		}
	}
	if sum != l.RawBytes {
		return fmt.Errorf("the segment says %d bytes of text and holds %d", l.RawBytes, sum)
	}
	return nil
}

func checkTrace(e *telemetry.LogEntry) error {
	if e.Trace != "" {
		if err := telemetry.CheckID(string(e.Trace)); err != nil {
			return fmt.Errorf("trace id %w", err)
		}
	}
	if e.Span != "" {
		if err := telemetry.CheckID(string(e.Span)); err != nil {
			return fmt.Errorf("span id %w", err)
		}
	}
	return nil
}
