package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// environment is .run/env: shell assignments that scripts can source, and
// devrun's own memory from one start to the next.
type environment struct {
	path   string
	values map[string]string
}

func readEnvironment(path string) (environment, error) {
	e := environment{path: path, values: map[string]string{}}
	f, err := os.Open(path) //nolint:gosec // our own file
	if errors.Is(err, fs.ErrNotExist) {
		return e, nil
	}
	if err != nil {
		return e, err
	}
	defer func() { _ = f.Close() }()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if k, v, ok := strings.Cut(strings.TrimPrefix(lines.Text(), "export "), "="); ok {
			e.values[k] = strings.Trim(v, "'")
		}
	}
	return e, lines.Err()
}

func (e *environment) get(key string) string { return e.values[key] }

func (e *environment) set(key, value string) error {
	e.values[key] = value
	keys := make([]string, 0, len(e.values))
	for k := range e.values {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	var b strings.Builder
	b.WriteString("# Written by `make run`; source it to reach what runs here.\n")
	for _, k := range keys {
		fmt.Fprintf(&b, "export %s='%s'\n", k, e.values[k])
	}
	return os.WriteFile(e.path, []byte(b.String()), 0o600)
}

// prepare chooses directories and ports, those of the last start where they
// are free.
func (d *devrun) prepare(ctx context.Context) error {
	d.dir = filepath.Join(d.root, ".run")
	if !othersMayPass(d.root) {
		// PostgreSQL refuses to run as root, and its user must reach the data.
		d.dir = filepath.Join("/var/tmp", "theazo-run-"+strings.Trim(strings.ReplaceAll(d.root, "/", "-"), "-"))
		d.sayf("  (the data is in %s: PostgreSQL's user may not enter %s)\n", d.dir, d.root)
	}
	runDir := filepath.Join(d.root, ".run")
	for _, dir := range []string{runDir, d.dir} {
		if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // PostgreSQL's user passes through
			return err
		}
	}
	var left []int
	var err error
	if d.lock, left, err = takeLock(filepath.Join(runDir, "lock")); err != nil {
		return err
	}
	d.awaitEnd(ctx, left)
	if d.env, err = readEnvironment(filepath.Join(runDir, "env")); err != nil {
		return err
	}
	if err := d.choosePorts(); err != nil {
		return err
	}
	if err := d.env.set("AGGREGATOR_DATA_DIR", filepath.Join(d.dir, "aggregator")); err != nil {
		return err
	}
	return d.env.set("AGENTD_STATE_DIR", filepath.Join(d.dir, "agentd"))
}

// choosePorts takes the ports of the last start where they are free, and no
// port twice: neighbours move to the next free port together.
func (d *devrun) choosePorts() error {
	taken := map[string]bool{}
	for _, l := range []struct {
		key  string
		port int
	}{{"AGGREGATOR_LISTEN_API", 8080}, {"AGGREGATOR_LISTEN_ADMIN", 9090}, {"AGGREGATOR_LISTEN_ENROLMENT", 7443}, {"AGGREGATOR_LISTEN_INGEST", 7444}} {
		address, err := freeAddress(d.env.get(l.key), l.port, taken)
		if err != nil {
			return err
		}
		taken[address] = true
		if err := d.env.set(l.key, address); err != nil {
			return err
		}
	}
	return d.env.set("THEAZO_URL", "http://"+d.env.get("AGGREGATOR_LISTEN_API"))
}

// othersMayPass reports whether users other than root can reach dir: always
// so where we are not root, since PostgreSQL then runs as us.
func othersMayPass(dir string) bool {
	if os.Getuid() != 0 {
		return true
	}
	for ; ; dir = filepath.Dir(dir) {
		var st syscall.Stat_t
		if err := syscall.Stat(dir, &st); err != nil || st.Mode&0o001 == 0 {
			return false
		}
		if dir == "/" {
			return true
		}
	}
}

// freeAddress returns last, or the first free port from port on, on loopback;
// none of those that are taken by another service of this start.
func freeAddress(last string, port int, taken map[string]bool) (string, error) {
	if last != "" && !taken[last] && free(last) {
		return last, nil
	}
	for p := port; p < port+100; p++ {
		if a := net.JoinHostPort("127.0.0.1", strconv.Itoa(p)); !taken[a] && free(a) {
			return a, nil
		}
	}
	return "", fmt.Errorf("no port from %d to %d is free on 127.0.0.1", port, port+99)
}

func free(address string) bool {
	l, err := net.Listen("tcp", address) //nolint:noctx // returns at once
	if err != nil {
		return false
	}
	_ = l.Close()
	return true
}
