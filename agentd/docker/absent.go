package docker

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/theazo/observability/agentd/source"
	"github.com/theazo/observability/shared/retry"
)

// rootKey is the position that names the containers' directory, so that a later
// start can read what is there before the engine answers.
const rootKey = "root"

// rootPosition is the directory of the containers' directories.
type rootPosition struct {
	Path string `json:"path"`
}

// firstAnswer is how long a start waits for the engine when its logs could be
// read without it.
const firstAnswer = 2 * time.Second

// meet returns what the engine says of itself, or, where it does not answer soon
// and an earlier process has noted where its logs are, nothing but that.
func (d *Source) meet(ctx context.Context, e engine, resume source.Positions) (info engineInfo, absent bool, err error) {
	var noted rootPosition
	if raw, ok := resume[rootKey]; ok && json.Unmarshal(raw, &noted) == nil && filepath.IsAbs(noted.Path) {
		asking, cancel := context.WithTimeout(ctx, firstAnswer)
		info, err := ask(asking, e)
		cancel()
		if err == nil {
			return info, false, nil
		}
		if ctx.Err() != nil {
			return engineInfo{}, false, ctx.Err()
		}
		d.log.Warn("no Docker engine answers; the logs that were known before are read without it", "directory", noted.Path, "error", err)
		return engineInfo{Root: filepath.Dir(noted.Path), Local: true}, true, nil
	}
	info, err = d.awaitEngine(ctx, e)
	return info, false, err
}

// noteRoot has the directory of the containers' directories remembered.
func (c *control) noteRoot() {
	note := encode(rootPosition{Path: c.root})
	if c.root != "" && filepath.Base(c.root) == containersDir && string(c.resume[rootKey]) != string(note) {
		c.reader.note(source.Positions{rootKey: note})
	}
}

// containersDir is the name of the containers' directory below DockerRootDir.
const containersDir = "containers"

// readKnown reads the logs of containers that an earlier process knew, while the
// engine does not answer. Their ends are told when it does, and new containers
// are identified then.
func (c *control) readKnown() {
	for id, r := range c.runs {
		if r.Who == nil || !r.Destroyed.IsZero() || r.sandbox != nil {
			continue
		}
		if _, err := os.Stat(filepath.Join(c.root, id)); err != nil {
			continue // gone: comparing tells
		}
		s := c.open(id)
		if s == nil || s.known() || s.tail.where() == nil {
			continue // no file to read
		}
		r.sandbox, r.unasked = s, true
		if d := s.configured(); d != nil {
			c.identify(r, d)
		} else {
			c.identifyVanished(r)
		}
	}
}

// confirmRoot waits for an engine that did not answer at the start, and fails when
// its logs are elsewhere than they were.
func (c *control) confirmRoot(ctx context.Context, rootOf func(engineInfo) string) error {
	pause := retry.Backoff{Min: 200 * time.Millisecond, Max: 10 * time.Second}
	for {
		info, err := ask(ctx, c.engine)
		if err == nil {
			if now := rootOf(info); now != c.root {
				return fmt.Errorf("the engine keeps its logs in %s, and not any more in %s", now, c.root)
			}
			return nil
		}
		if retry.Sleep(ctx, pause.Next()) != nil {
			return nil //nolint:nilerr // the source ends
		}
	}
}
