package docker

import (
	"testing"
	"time"
)

// What the list told of is not told again by events, which come later, and
// what it did not tell of is.
func TestEventsThatTheListToldOfBefore(t *testing.T) {
	at := func(ms int) time.Time { return time.Unix(1000, 0).Add(time.Duration(ms) * time.Millisecond) }
	type step struct {
		action  string
		at      int
		repeats bool
	}
	for name, tc := range map[string]struct {
		listed bool
		exited int // 0: it runs
		steps  []step
	}{
		"a moment's life, its start told after its finish": {true, 5, []step{{"start", 8, true}, {"die", 9, true}, {"start", 500, false}}},
		"listed while it runs":                             {true, 0, []step{{"start", 3, true}, {"die", 900, false}}},
		"listed, and the start's event is lost":            {true, 0, []step{{"die", 900, false}, {"start", 950, false}}},
		"listed long ago":                                  {true, 2000, []step{{"start", 60_000, false}}},
		"a restart before the one that is listed":          {true, 0, []step{{"start", -500, true}, {"die", -300, true}, {"start", 2, true}, {"die", 100, false}}},
		"told by events":                                   {false, 0, []step{{"die", 4, false}, {"start", 6, false}}},
	} {
		r := &run{}
		r.begins(at(0), tc.listed)
		if tc.exited != 0 {
			r.Exited = at(tc.exited)
		}
		for i, s := range tc.steps {
			got := r.repeats(s.action, &engineEvent{At: at(s.at)})
			if got != s.repeats {
				t.Errorf("%s: step %d (%s): repeats is %v", name, i, s.action, got)
			}
			switch {
			case got:
			case s.action == "start":
				r.begins(at(s.at), false)
			case s.action == "die":
				r.Exited = at(s.at)
			}
		}
	}
}
