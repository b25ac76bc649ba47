package localpg

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// mark tells a postmaster of ours from one that an administrator has started on
// the same directory. It is its cluster_name, so it is in its command line.
const mark = "theazo-private"

const (
	patience  = 30 * time.Second // for the processes of an earlier run, and for a fast shutdown
	impatient = 20 * time.Second // then they are ended at once
	lastWords = 5 * time.Second  // between SIGQUIT and SIGKILL, and between progress messages
)

// settle makes the cluster free for a new postmaster. An earlier run may have left
//
//   - a postmaster that is still shutting down: it is told to (again), awaited;
//   - backends whose postmaster was killed with -9: they are told to end, awaited,
//     because they still write to the same files;
//   - the lock files of either. PostgreSQL trusts them as long as any process has
//     their pid, be it a zombie or a stranger, and refuses to start.
//
// Whether a process belongs to the cluster is asked of /proc: every process of
// PostgreSQL works in its data directory. A lock file may go only when none is left.
func (s *Server) settle(ctx context.Context) error {
	told := -1
	err := s.evict(ctx, s.layout.cluster, func(pids []int, waited time.Duration) error {
		leader, ours := s.leader(pids)
		switch {
		case leader != 0 && !ours:
			return fmt.Errorf("a PostgreSQL that the aggregator did not start (pid %d) runs in %s: stop it first", leader, s.layout.cluster)
		case waited > impatient:
			signalAll(pids, syscall.SIGQUIT)
		case leader == told:
		case leader != 0:
			s.log.Info("waiting for the PostgreSQL of an earlier run to end", "pid", leader)
			signalAll([]int{leader}, syscall.SIGINT)
		default:
			s.log.Info("ending what a killed PostgreSQL left running", "processes", len(pids))
			signalAll(pids, syscall.SIGQUIT)
		}
		told = leader
		return nil
	})
	if err != nil {
		return err
	}
	for _, path := range []string{filepath.Join(s.layout.cluster, "postmaster.pid"), s.layout.socket(), s.layout.socket() + ".lock"} {
		if err := os.Remove(path); err == nil {
			s.log.Debug("removed a file of a PostgreSQL that is gone", "path", path)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove a file of a PostgreSQL that is gone: %w", err)
		}
	}
	return nil
}

// evict calls act until no PostgreSQL process works in dir, for up to patience.
func (s *Server) evict(ctx context.Context, dir string, act func(pids []int, waited time.Duration) error) error {
	begun, reported := time.Now(), time.Now()
	for {
		pids, err := s.occupants(dir)
		if err != nil || len(pids) == 0 {
			return err
		}
		waited := time.Since(begun)
		if waited > patience {
			return fmt.Errorf("PostgreSQL processes of an earlier run still work in %s after %v (pids %v): look at what keeps them, end them", dir, patience, pids)
		}
		if err := act(pids, waited); err != nil {
			return err
		}
		if time.Since(reported) > lastWords {
			reported = time.Now()
			s.log.Info("still waiting for the PostgreSQL of an earlier run to end", "processes", len(pids), "waited", rounded(waited))
		}
		if !pause(ctx, 10*time.Millisecond) {
			return fmt.Errorf("wait for the PostgreSQL of an earlier run in %s: %w", dir, context.Cause(ctx))
		}
	}
}

func bySignal(sig syscall.Signal) func([]int, time.Duration) error {
	return func(pids []int, _ time.Duration) error { signalAll(pids, sig); return nil }
}

func signalAll(pids []int, sig syscall.Signal) {
	for _, pid := range pids {
		_ = syscall.Kill(pid, sig) // Gone meanwhile is as good.
	}
}

// occupants are the living PostgreSQL processes that work in dir. A zombie has no
// working directory any more, so it is none.
func (s *Server) occupants(dir string) ([]int, error) {
	here, err := os.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look for processes of an earlier run: %w", err)
	}
	proc, err := os.Open("/proc")
	if err != nil {
		return nil, fmt.Errorf("look for processes of an earlier run: %w", err)
	}
	defer proc.Close()
	names, err := proc.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("look for processes of an earlier run: %w", err)
	}
	var pids []int
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil || pid == os.Getpid() {
			continue
		}
		if comm, err := os.ReadFile("/proc/" + name + "/comm"); err != nil || firstLine(comm) != "postgres" {
			continue
		}
		// What its user may not look at belongs to another user, so not to this cluster.
		if cwd, err := s.user.stat("/proc/" + name + "/cwd"); err == nil && os.SameFile(here, cwd) {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// leader finds the postmaster among the processes of the cluster, 0 if it is gone,
// and says whether this package has started it.
func (s *Server) leader(pids []int) (pid int, ours bool) {
	data, err := os.ReadFile(filepath.Join(s.layout.cluster, "postmaster.pid"))
	if err != nil {
		return 0, false
	}
	pid, err = strconv.Atoi(strings.TrimPrefix(firstLine(data), "-")) // Negative: single-user mode.
	if err != nil {
		return 0, false
	}
	if !slices.Contains(pids, pid) {
		return 0, false
	}
	cmdline, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
	return pid, err == nil && bytes.Contains(cmdline, []byte("cluster_name="+mark))
}

func firstLine(data []byte) string {
	line, _, _ := bytes.Cut(data, []byte("\n"))
	return string(bytes.TrimSpace(line))
}
