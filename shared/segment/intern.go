package segment

import "github.com/theazo/observability/shared/telemetry"

// Interner gives equal origins of many segments the same strings. Strings in
// the same place compare without a look at their bytes, which for lines from
// all over the memory is most of the cost of bringing them together. Not safe for
// concurrent use.
type Interner struct {
	origins map[telemetry.Origin]telemetry.Origin
}

// Intern changes the origins of a segment that nobody else reads yet.
func (in *Interner) Intern(s *Segment) {
	if in.origins == nil {
		in.origins = make(map[telemetry.Origin]telemetry.Origin)
	}
	for i := range s.Origins {
		o, known := in.origins[s.Origins[i]]
		if !known {
			o = s.Origins[i]
			in.origins[o] = o
		}
		s.Origins[i] = o
	}
}

// Reset forgets all origins, so that what they were views of can go.
func (in *Interner) Reset() { clear(in.origins) }
