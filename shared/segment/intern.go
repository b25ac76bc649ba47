package segment

import "github.com/theazo/observability/shared/telemetry"

// Interner gives equal origins of many segments the same strings. Strings in
// the same place compare without a look at their bytes, which for lines from
// all over the memory is most of the cost of bringing them together. Not safe for
// concurrent use.
type Interner struct {
	numbers map[telemetry.Origin]uint32
	origins []telemetry.Origin
}

// Intern changes the origins of a segment that nobody else reads yet. It appends
// the number in Origins of each.
func (in *Interner) Intern(s *Segment, numbers []uint32) []uint32 {
	if in.numbers == nil {
		in.numbers = make(map[telemetry.Origin]uint32)
	}
	for i := range s.Origins {
		n, known := in.numbers[s.Origins[i]]
		if known {
			s.Origins[i] = in.origins[n]
		} else {
			n = uint32(len(in.origins)) //nolint:gosec // origins in memory
			in.numbers[s.Origins[i]] = n
			in.origins = append(in.origins, s.Origins[i])
		}
		numbers = append(numbers, n)
	}
	return numbers
}

// Origins are all that were interned, each once.
func (in *Interner) Origins() []telemetry.Origin { return in.origins }

// Reset forgets all origins, so that what they were views of can go.
func (in *Interner) Reset() {
	clear(in.numbers)
	clear(in.origins)
	in.origins = in.origins[:0]
}
