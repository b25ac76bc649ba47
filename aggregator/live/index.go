package live

import (
	"slices"

	"github.com/theazo/observability/shared/telemetry"
)

// anchor is a value of a field that every line of a view has: the view is
// looked at only where a part holds lines of that value. The zero anchor is
// of views that any part may concern.
type anchor struct {
	field telemetry.LogField
	value string
}

// anywhere is under which views stand that no field parts.
var anywhere = anchor{field: telemetry.FieldMessage}

// anchorsOf chooses the field that parts a filter's lines best from others.
func anchorsOf(f *telemetry.LogFilter) []anchor {
	switch {
	case len(f.Agents) > 0:
		return anchors(telemetry.FieldAgent, f.Agents)
	case len(f.Sessions) > 0:
		return anchors(telemetry.FieldSession, f.Sessions)
	case len(f.Sandbox) > 0:
		return anchors(telemetry.FieldSandbox, f.Sandbox)
	case len(f.Users) > 0:
		return anchors(telemetry.FieldUser, f.Users)
	case len(f.Nodes) > 0:
		return anchors(telemetry.FieldNode, f.Nodes)
	case len(f.Levels) > 0:
		names := make([]string, len(f.Levels))
		for i, l := range f.Levels {
			names[i] = l.String()
		}
		return anchors(telemetry.FieldLevel, names)
	}
	return []anchor{anywhere}
}

func anchors[T ~string](field telemetry.LogField, values []T) []anchor {
	list := make([]anchor, len(values))
	for i, v := range values {
		list[i] = anchor{field, string(v)}
	}
	return list
}

// index finds the views that a part can concern. Its tailer's lock guards it.
type index struct {
	views map[string]*view
	by    map[anchor][]*view
	used  [telemetry.FieldMessage + 1]int // anchors in by, by field
	round uint64
}

func newIndex() index {
	return index{views: make(map[string]*view), by: make(map[anchor][]*view)}
}

func (x *index) add(key string, v *view) {
	x.views[key] = v
	for _, a := range anchorsOf(&v.filter) {
		x.by[a] = append(x.by[a], v)
		x.used[a.field]++
	}
}

func (x *index) remove(key string) {
	v := x.views[key]
	delete(x.views, key)
	for _, a := range anchorsOf(&v.filter) {
		left := slices.DeleteFunc(x.by[a], func(other *view) bool { return other == v })
		if x.by[a] = left; len(left) == 0 {
			delete(x.by, a)
		}
		x.used[a.field]--
	}
}

// candidate is a view that a part can concern: by lines of some origins, or
// by any.
type candidate struct {
	view    *view
	origins []uint32 // indices in the part's Origins
	all     bool
}

// candidates returns the views that a part can concern and that have a reader
// that follows. Only the tailer asks: it notes its round in the views.
func (x *index) candidates(p *part) []candidate {
	found := search{index: x}
	x.round++
	if len(p.Gaps) > 0 { // rare, and every filter has its own mind about them
		for _, v := range x.views {
			found.add(v)
		}
	}
	if p.Lines == nil {
		return found.list
	}
	found.look(telemetry.FieldNode, string(p.Node))
	for l, n := range p.Lines.Levels {
		if n > 0 {
			found.look(telemetry.FieldLevel, telemetry.Level(l).String())
		}
	}
	found.look(anywhere.field, anywhere.value)
	for i := range p.Lines.Origins {
		o := &p.Lines.Origins[i]
		at := uint32(i)
		found.lookIn(telemetry.FieldAgent, string(o.Agent), at)
		found.lookIn(telemetry.FieldSession, string(o.Session), at)
		found.lookIn(telemetry.FieldSandbox, string(o.Sandbox), at)
		found.lookIn(telemetry.FieldUser, string(o.User), at)
	}
	return found.list
}

// search collects candidates, each once.
type search struct {
	*index
	list []candidate
}

// slot returns where a view stands in the list, and puts it there if it follows.
func (s *search) slot(v *view) *candidate {
	if v.round != s.round {
		v.round, v.slot = s.round, -1
		if v.following() {
			v.slot = len(s.list)
			s.list = append(s.list, candidate{view: v})
		}
	}
	if v.slot < 0 {
		return nil
	}
	return &s.list[v.slot]
}

func (s *search) add(v *view) {
	if c := s.slot(v); c != nil {
		c.all = true
	}
}

// look adds the views of a value that any line of the part may have.
func (s *search) look(field telemetry.LogField, value string) {
	if s.used[field] == 0 {
		return
	}
	for _, v := range s.by[anchor{field, value}] {
		s.add(v)
	}
}

// lookIn adds the views of a value that the lines of one origin have.
func (s *search) lookIn(field telemetry.LogField, value string, origin uint32) {
	if s.used[field] == 0 {
		return
	}
	for _, v := range s.by[anchor{field, value}] {
		if c := s.slot(v); c != nil {
			c.origins = append(c.origins, origin)
		}
	}
}
