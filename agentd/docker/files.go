package docker

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/theazo/observability/agentd/source"
	"github.com/theazo/observability/shared/telemetry"
)

// files reads json files by glob: the same tails without an engine. Nobody says
// when a file's writer has ended, so a last line without its newline stays open.
type files struct {
	*Source
	all    *registry
	watch  *watcher
	reader *reader
	resume source.Positions
}

// open takes on the files that are there, and watches for others.
func (f *files) open() error {
	for _, glob := range f.cfg.Files {
		dir := filepath.Dir(glob)
		if strings.ContainsAny(dir, `*?[\`) {
			return fmt.Errorf("files: %q: only the last part of a glob may hold a pattern", glob)
		}
		if err := f.watch.dir(dir); err != nil {
			return fmt.Errorf("files: %q: %w", glob, err)
		}
		entries, err := os.ReadDir(dir)
		if err != nil {
			return fmt.Errorf("files: %q: %w", glob, err)
		}
		for _, e := range entries {
			f.found(dir, e.Name())
		}
	}
	return nil
}

// found takes on a file that matches a glob.
func (f *files) found(dir, name string) {
	path := filepath.Join(dir, name)
	matches := false
	for _, glob := range f.cfg.Files {
		if ok, err := filepath.Match(glob, path); ok && err == nil {
			matches = true
		}
	}
	if !matches {
		return
	}
	s, created := f.all.add(path, func() *tail {
		t := newTail(dir, name)
		t.limits, t.budget = f.reader.limits, f.reader.budget
		return f.reader.kept.restore(path, t)
	})
	if !created {
		return
	}
	id := strings.TrimSuffix(strings.TrimSuffix(name, ".log"), "-json")
	target := identify(&f.cfg, &details{ID: clip(id, telemetry.MaxIDLength)}, nil)
	if telemetry.CheckID(id) == nil && strings.HasPrefix(id, "agt_") {
		target.Origin.Agent = telemetry.AgentID(id)
	}
	start := &beginning{}
	if raw, ok := f.resume[logKey+path]; ok {
		if p := new(logPosition); json.Unmarshal(raw, p) == nil {
			start.position = p
		}
	}
	// Pinned before it is read: a position is looked for among the files held.
	if err := f.watch.follow(s); err != nil && !errors.Is(err, os.ErrNotExist) {
		f.log.Warn("a log file cannot be opened", "file", path, "error", err)
	}
	s.identified(&target, start)
	f.reader.push(s)
}
