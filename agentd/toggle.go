package agentd

import "sync"

// toggle is a switch that others wait for.
type toggle struct {
	mu      sync.Mutex
	on      bool
	changed chan struct{} // closed and replaced at each change
}

func newToggle(on bool) *toggle { return &toggle{on: on, changed: make(chan struct{})} }

// get returns the position and a channel that is closed when it changes.
func (t *toggle) get() (on bool, changed <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.on, t.changed
}

func (t *toggle) set(on bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.on == on {
		return
	}
	t.on = on
	close(t.changed)
	t.changed = make(chan struct{})
}
