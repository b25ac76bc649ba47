package docker

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
)

// newContainerTail reads the log of a container with that directory, whatever
// its driver.
func newContainerTail(dir, id string, l limits, b *budget) *tail {
	return &tail{home: dir, layouts: layoutsOf(dir, id), limits: l, budget: b}
}

// pin opens every file of the chain that is newer than the newest one held. It
// reports whether there were any.
func (t *tail) pin() (bool, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return false, nil
	}
	if err := t.place(); t.at == nil {
		return false, err
	}
	fresh, err := t.scanChain()
	for _, f := range fresh {
		t.seq++
		f.seq = t.seq
	}
	t.files = append(t.files, fresh...)
	t.pinned += len(fresh)
	if len(fresh) > 0 {
		t.enforce()
	}
	return len(fresh) > 0, err
}

// place finds out which layout the log has.
func (t *tail) place() error {
	var first error
	for i := range t.layouts {
		if t.at != nil {
			break
		}
		names, err := t.layouts[i].chain()
		if len(names) > 0 {
			t.at = &t.layouts[i]
		} else if i == 0 {
			first = err
		}
	}
	return first
}

// where returns the layout of the log, as soon as a file of it was seen.
func (t *tail) where() *layout {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.at
}

// scanChain opens files from the newest name to the oldest until it meets one
// that is held, and returns them oldest first. Renames during the scan move
// files towards older names, so one may be met twice but none is passed over;
// only a name that vanished meanwhile makes it look again.
//
// A compressed file may be one that is held, or was, in its plain form: then its
// first record is the same.
func (t *tail) scanChain() ([]*logFile, error) {
	var fresh []*logFile // newest first
	for range 3 {
		names, err := t.at.chain()
		if err != nil {
			return nil, err
		}
		var seen []*logFile
		met, hole, next := false, false, 0
		for _, name := range names {
			hole = hole || name.number > next // the listing left one out
			next = name.number + 1
			f, err := t.open(name)
			if errors.Is(err, os.ErrNotExist) {
				hole = true
				continue
			}
			if err != nil {
				if len(fresh)+len(seen) > 0 {
					break // what is open is worth more than what is not
				}
				return nil, err
			}
			same := func(o *logFile) bool { return o.same(f) }
			if i := slices.IndexFunc(fresh, same); i >= 0 {
				f.close()
				f = fresh[i]
			} else if slices.ContainsFunc(seen, same) {
				f.close()
				continue
			} else if slices.ContainsFunc(t.files, same) || f.zip != nil && slices.Contains(t.gone, f.known()) {
				f.close()
				met = true
				break
			}
			seen = append(seen, f)
		}
		for _, f := range fresh {
			if !slices.Contains(seen, f) {
				seen = append(seen, f) // rotated away since, and held
			}
		}
		if fresh = seen; met || !hole {
			break
		}
	}
	slices.Reverse(fresh)
	return fresh, nil
}

// open opens one file of the chain, within the budget of descriptors.
func (t *tail) open(name chainName) (*logFile, error) {
	if err := t.budget.take(); err != nil {
		return nil, err
	}
	f, err := openLog(filepath.Join(t.at.dir, name.name), t.at.format, name.zipped)
	if err != nil {
		t.budget.give()
		return nil, err
	}
	f.budget = t.budget
	if f.zip != nil {
		// Now, while nobody else reads it.
		if _, err := f.fingerprint(); err != nil {
			f.close()
			return nil, err
		}
	}
	return f, nil
}

// same reports whether two open files are one, or one is the other compressed.
func (l *logFile) same(o *logFile) bool {
	if l.id == o.id {
		return true
	}
	if l.zip == nil && o.zip == nil {
		return false
	}
	first, err1 := l.fingerprint()
	second, err2 := o.fingerprint()
	return err1 == nil && err2 == nil && first != "" && first == second
}
