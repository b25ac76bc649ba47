package localpg

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// oldest is the first major version with everything the store's SQL needs.
const oldest = 14

// Where distributions put the programs that are not for a user's PATH:
// Debian and Ubuntu, the PostgreSQL project's RPMs, Fedora, Alpine.
var usualPlaces = []string{
	"/usr/lib/postgresql/*/bin",
	"/usr/pgsql-*/bin",
	"/usr/libexec/postgresql*",
}

type binaries struct {
	dir, initdb, postgres string
	major                 int
}

// findBinaries gives the programs that fit the cluster: its own major version,
// or the newest one when there is no cluster yet.
func findBinaries(ctx context.Context, binDir string, l *layout, user account) (binaries, error) {
	major, err := clusterMajor(l.cluster)
	if err != nil {
		return binaries{}, err
	}
	var found []binaries
	for _, dir := range candidates(binDir) {
		b, err := inspect(ctx, dir, user)
		switch {
		case err == nil:
			found = append(found, b)
		case ctx.Err() != nil:
			return binaries{}, fmt.Errorf("look for PostgreSQL: %w", context.Cause(ctx))
		case binDir != "":
			return binaries{}, fmt.Errorf("PostgreSQL's programs in %s: %w", binDir, err)
		}
	}
	slices.SortStableFunc(found, func(a, b binaries) int { return b.major - a.major })
	for _, b := range found {
		if b.major == major || major == 0 && b.major >= oldest {
			return b, nil
		}
	}
	return binaries{}, noBinaries(major, found, l.cluster)
}

func noBinaries(major int, found []binaries, cluster string) error {
	var have []string
	for _, b := range found {
		have = append(have, fmt.Sprintf("%d in %s", b.major, b.dir))
	}
	seen := "none found"
	if len(have) > 0 {
		seen = "found " + strings.Join(have, ", ")
	}
	if major == 0 {
		return fmt.Errorf("no PostgreSQL %d or newer on this machine (%s): install it (Debian: apt-get install postgresql), or give the DSN of a server", oldest, seen)
	}
	return fmt.Errorf("%s was made by PostgreSQL %d and no other version can open it (%s): install PostgreSQL %d (Debian: apt-get install postgresql-%d), or move the data over with pg_upgrade", cluster, major, seen, major, major)
}

// clusterMajor is 0 when there is no cluster yet.
func clusterMajor(cluster string) (int, error) {
	path := filepath.Join(cluster, "PG_VERSION")
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Lstat(cluster); err == nil {
			return 0, fmt.Errorf("%s is not a PostgreSQL cluster (it has no PG_VERSION): restore it or move it away", cluster)
		}
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read the version of the cluster: %w (run this as root or as the owner of the cluster)", err)
	}
	text, _, _ := bytes.Cut(data, []byte("\n"))
	major, err := strconv.Atoi(string(text))
	if err != nil || major < 1 {
		return 0, fmt.Errorf("%s holds %.20q, not a major version: restore the cluster from a backup", path, text)
	}
	return major, nil
}

func candidates(binDir string) []string {
	if binDir != "" {
		return []string{binDir}
	}
	var dirs []string
	for _, pattern := range usualPlaces {
		match, _ := filepath.Glob(pattern) // The patterns are constants.
		dirs = append(dirs, match...)
	}
	if path, err := exec.LookPath("postgres"); err == nil {
		if path, err = filepath.EvalSymlinks(path); err == nil {
			dirs = append(dirs, filepath.Dir(path))
		}
	}
	return dirs
}

var versionOutput = regexp.MustCompile(`^postgres \(PostgreSQL\) (\d+)`)

// inspect asks the program for its version: a directory's name promises nothing.
func inspect(ctx context.Context, dir string, user account) (binaries, error) {
	b := binaries{dir: dir, initdb: filepath.Join(dir, "initdb"), postgres: filepath.Join(dir, "postgres")}
	if _, err := os.Stat(b.initdb); err != nil {
		return b, fmt.Errorf("look for initdb: %w", err)
	}
	out, err := run(ctx, user, nil, b.postgres, "--version")
	if err != nil {
		return b, err
	}
	m := versionOutput.FindStringSubmatch(out)
	if m == nil {
		return b, fmt.Errorf("%s --version says %.80q", b.postgres, out)
	}
	b.major, err = strconv.Atoi(m[1])
	return b, err
}

// run runs one of PostgreSQL's programs to its end and gives its output, which is
// also in the error. The program and its children do not outlive ctx.
func run(ctx context.Context, user account, files []*os.File, program string, args ...string) (string, error) {
	var out tail
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir, cmd.Env, cmd.ExtraFiles = "/", environment(), files
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = user.process(syscall.SIGKILL)
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	err := onOneThread(cmd.Run)
	if ctx.Err() != nil {
		return "", fmt.Errorf("%s interrupted: %w", filepath.Base(program), context.Cause(ctx))
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", program, err, out.String())
	}
	return out.String(), nil
}
