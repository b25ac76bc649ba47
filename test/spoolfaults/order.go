package spoolfaults

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// Order is what a writer's system calls showed.
type Order struct {
	Calls      int
	Rotations  int // files begun
	Copies     int // files replaced by a copy
	Unlinks    int
	Violations []string
}

// Merge adds another run's findings.
func (o *Order) Merge(p *Order) {
	o.Calls += p.Calls
	o.Rotations += p.Rotations
	o.Copies += p.Copies
	o.Unlinks += p.Unlinks
	o.Violations = append(o.Violations, p.Violations...)
}

// CheckOrder lets one writer live under strace and checks the order of what it
// asked of the kernel:
//
//	write to a segment ──▶ fsync of it ──▶ told as accepted or offered
//	write of the cursor ──▶ fsync of it ──▶ a segment unlinked, or replaced
//	new file written ──▶ fsync ──▶ rename ──▶ fsync of the directory ──▶ written to again, or another unlinked
func CheckOrder(ctx context.Context, dir string) (*Order, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	log := dir + ".strace"
	cmd := exec.CommandContext(ctx, "strace", "-f", "-qq", "-y", "-s", "16", "--seccomp-bpf", "-o", log, //nolint:gosec // our own words
		"-e", "trace=pwrite64,fsync,fdatasync,renameat,unlinkat,write", self)
	cmd.Env = append(os.Environ(), WriterEnv+"="+dir)
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("strace: %w", err)
	}
	if len(out) == 0 {
		return nil, errors.New("the writer told nothing")
	}
	f, err := os.Open(log) //nolint:gosec // as above
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return checkOrder(f, filepath.Base(dir)), nil
}

// watcher follows what of which file is not flushed.
type watcher struct {
	Order
	unsynced   map[string]bool // files written to since their last fsync
	cursorSeen bool
	renamed    map[string]bool // segments by name, and whether the directory was flushed since
	copied     bool            // a copy took a file's name, and the directory was not flushed since
}

var (
	callLine   = regexp.MustCompile(`^(\d+)\s+(\w+)\((.*)$`)
	resumeLine = regexp.MustCompile(`^(\d+)\s+<\.\.\. (\w+) resumed>(.*)$`)
	pathOf     = regexp.MustCompile(`<([^>]*)>`)
	quoted     = regexp.MustCompile(`"([^"]*)"`)
)

func checkOrder(log io.Reader, dir string) *Order {
	w := &watcher{unsynced: map[string]bool{}, renamed: map[string]bool{}}
	pending := map[string]string{} // by thread: a call that has begun
	lines := bufio.NewScanner(log)
	lines.Buffer(make([]byte, 1<<20), 1<<20)
	for lines.Scan() {
		line := lines.Text()
		if m := resumeLine.FindStringSubmatch(line); m != nil {
			w.end(m[2], pending[m[1]]+m[3], dir)
			delete(pending, m[1])
			continue
		}
		m := callLine.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		// What must come first has ended before; so what must come later is
		// judged when it begins, and what makes durable counts when it has ended.
		w.begin(m[2], m[3], dir)
		if args, cut := strings.CutSuffix(m[3], "<unfinished ...>"); cut {
			pending[m[1]] = args
			continue
		}
		w.end(m[2], m[3], dir)
	}
	return &w.Order
}

func (w *watcher) begin(call, args, dir string) {
	name := baseIn(args, dir)
	switch call {
	case "pwrite64":
		w.Calls++
		if flushed, named := w.renamed[name]; named && !flushed {
			w.violation("%s is written to before its name is flushed", name)
		}
		w.unsynced[name] = true
	case "write":
		if strings.HasPrefix(args, "1<") {
			w.told()
		}
	case "renameat":
		w.Calls++
		if names := quoted.FindAllStringSubmatch(args, -1); len(names) == 2 {
			w.rename(names[0][1], names[1][1])
		}
	case "unlinkat":
		w.Calls++
		if names := quoted.FindAllStringSubmatch(args, -1); len(names) == 1 && strings.HasSuffix(names[0][1], ".seg") {
			w.Unlinks++
			w.goes(names[0][1])
		}
	}
}

func (w *watcher) end(call, args, dir string) {
	if call != "fsync" && call != "fdatasync" || !strings.HasSuffix(strings.TrimSpace(args), "= 0") {
		return
	}
	w.Calls++
	name := baseIn(args, dir)
	if name == "" {
		for name := range w.renamed {
			w.renamed[name] = true
		}
		w.copied = false
		return
	}
	delete(w.unsynced, name)
	if strings.HasPrefix(name, "cursor.") {
		w.cursorSeen = true
	}
}

// told: the parent was told of an append or a frame.
func (w *watcher) told() {
	for name := range w.unsynced {
		if strings.HasSuffix(name, ".seg") {
			w.violation("told of what %s holds before it is flushed", name)
		}
	}
}

func (w *watcher) rename(from, to string) {
	if w.unsynced[from] {
		w.violation("%s gets its name before it is flushed", from)
	}
	if _, there := w.renamed[to]; there { // a copy takes the place of a file
		w.Copies++
		w.goes(to)
		w.copied = true
	} else {
		w.Rotations++
	}
	w.renamed[to] = false
}

// goes: a file's frames are given up to the cursor, or to a copy.
func (w *watcher) goes(name string) {
	if !w.cursorSeen {
		w.violation("%s goes without a cursor", name)
	}
	if flushed, named := w.renamed[name]; named && !flushed {
		w.violation("%s goes before its name was flushed", name)
	}
	if w.copied {
		w.violation("%s goes while the name of a copy is not flushed", name)
	}
}

func (w *watcher) violation(format string, args ...any) {
	w.Violations = append(w.Violations, fmt.Sprintf(format, args...))
}

// baseIn is the name, below the directory, of the first descriptor in a call; ""
// is the directory itself.
func baseIn(args, dir string) string {
	m := pathOf.FindStringSubmatch(args)
	if m == nil {
		return "?"
	}
	_, name, ok := strings.Cut(m[1], "/"+dir)
	if !ok {
		return "?"
	}
	return strings.TrimPrefix(name, "/")
}
