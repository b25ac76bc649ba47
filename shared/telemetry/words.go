package telemetry

import (
	"fmt"
	"strings"
)

// words ties the values of a small enumeration, counted from 0, to their
// documented names.
type words[T ~uint8] struct {
	kind  string
	names []string
}

func (w words[T]) name(v T) string {
	if int(v) < len(w.names) {
		return w.names[v]
	}
	return fmt.Sprintf("%s(%d)", w.kind, uint8(v))
}

// list names the words, but for the empty one that some have inside.
func (w words[T]) list() string { return strings.TrimPrefix(strings.Join(w.names, ", "), ", ") }

func (w words[T]) parse(s string) (T, error) {
	for i, n := range w.names {
		if s == n {
			return T(i), nil
		}
	}
	return 0, fmt.Errorf("unknown %s %.40q: use one of %s", w.kind, s, w.list())
}

func (w words[T]) marshal(v T) ([]byte, error) {
	if int(v) >= len(w.names) {
		return nil, fmt.Errorf("no %s has the number %d", w.kind, uint8(v))
	}
	return []byte(w.names[v]), nil
}

func (w words[T]) unmarshal(b []byte, to *T) error {
	v, err := w.parse(string(b))
	if err != nil {
		return err
	}
	*to = v
	return nil
}
