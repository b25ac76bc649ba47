package docker

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// format is how the records of a log's files are written.
type format uint8

// The formats.
const (
	jsonLines   format = iota // a JSON object a line: the json-file driver
	localFrames               // frames of protobuf: the local driver, and the cache
)

// layout is a place where an engine may keep a log.
type layout struct {
	dir, base string
	format    format
	// cached says that the log is the engine's own copy of what goes to another
	// driver, made so that `docker logs` works. Its queue drops lines silently
	// while a container prints faster than they are written.
	cached bool
}

// Names below a container's directory.
const (
	jsonSuffix = "-json.log"
	localDir   = "local-logs"
	localBase  = "container.log"
	cacheBase  = "container-cached.log"
)

// layoutsOf returns where the log of a container with that directory can be.
// Its driver never changes, so the first file that is seen decides.
func layoutsOf(dir, id string) []layout {
	return []layout{
		{dir: dir, base: id + jsonSuffix},
		{dir: filepath.Join(dir, localDir), base: localBase, format: localFrames},
		{dir: dir, base: cacheBase, format: localFrames, cached: true},
	}
}

// below returns the name in home by which the layout shows first.
func (l *layout) below(home string) string {
	if l.dir == home {
		return l.base
	}
	return filepath.Base(l.dir)
}

// chainName is one file of a log's chain, as a directory lists it.
type chainName struct {
	name   string
	number int // 0: being written; higher is older
	zipped bool
}

const zipSuffix = ".gz"

// chain lists base, base.1, base.2 … as far as they exist, newest first. An
// engine that compresses writes base.1.gz beside base.1, which it then removes:
// where there are both, the first is not complete yet.
func (l *layout) chain() ([]chainName, error) {
	d, err := os.Open(l.dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	all, err := d.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	var names []chainName
	for _, name := range all {
		if name == l.base {
			names = append(names, chainName{name: name})
		} else if rest, ok := strings.CutPrefix(name, l.base+"."); ok {
			rest, zipped := strings.CutSuffix(rest, zipSuffix)
			if n, err := strconv.Atoi(rest); err == nil && n > 0 && n < maxRotated {
				names = append(names, chainName{name: name, number: n, zipped: zipped})
			}
		}
	}
	slices.SortFunc(names, func(a, b chainName) int {
		switch {
		case a.number != b.number:
			return a.number - b.number
		case a.zipped:
			return 1
		}
		return -1
	})
	return slices.CompactFunc(names, func(a, b chainName) bool { return a.number == b.number }), nil
}
