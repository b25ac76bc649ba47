package sandbox

import (
	"github.com/theazo/observability/agentd/source"
	"github.com/theazo/observability/shared/telemetry"
)

// recordBytes is what a record takes beside its texts, about.
const recordBytes = 64

// sizeOf is how many records a batch holds, and about how much memory.
func sizeOf(b *source.Batch) (records, bytes int) {
	records = len(b.Lines) + len(b.Entries) + b.Len()
	bytes = records * recordBytes
	for i := range b.Lines {
		bytes += len(b.Lines[i].Text)
	}
	for i := range b.Entries {
		bytes += len(b.Entries[i].Message) + len(b.Entries[i].Metadata)
	}
	for i := range b.Events {
		e := &b.Events[i]
		bytes += len(e.Content) + len(e.Reason) + textBytes(e.Attributes)
	}
	for i := range b.Spans {
		bytes += spanBytes(&b.Spans[i])
	}
	for i := range b.ModelCalls {
		bytes += len(b.ModelCalls[i].Model) + len(b.ModelCalls[i].Metadata)
	}
	for i := range b.Metrics {
		m := &b.Metrics[i]
		bytes += len(m.Name) + textBytes(m.Attributes)
		if h := m.Histogram; h != nil {
			bytes += 8 * (len(h.Bounds) + len(h.Counts))
			if e := h.Exponential; e != nil {
				bytes += 8 * (len(e.Positive) + len(e.Negative))
			}
		}
	}
	return records, bytes
}

func spanBytes(s *telemetry.Span) int {
	n := len(s.Name) + len(s.Error) + len(s.Scope) + len(s.Attributes) + len(s.Resource)
	for i := range s.Events {
		n += recordBytes + len(s.Events[i].Name) + len(s.Events[i].Attributes)
	}
	for i := range s.Links {
		n += recordBytes + len(s.Links[i].Attributes)
	}
	return n
}

func textBytes(m map[string]string) int {
	n := 0
	for k, v := range m {
		n += 2*16 + len(k) + len(v)
	}
	return n
}
