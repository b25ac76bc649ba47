package spoolfaults

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"github.com/theazo/observability/agentd/spool"
)

// WriterEnv makes a program that calls Main the one that is killed.
const WriterEnv = "SPOOLFAULTS_WRITER"

// Main runs the writer, or the power cuts, where the environment asks for them,
// and reports whether it did. Programs that use this package call it first.
func Main() bool {
	if dir := os.Getenv(WriterEnv); dir != "" {
		exit(write(dir))
		return true
	}
	if task := os.Getenv(cutterEnv); task != "" {
		exit(cutHere(task))
		return true
	}
	return false
}

func exit(err error) {
	if err != nil {
		_, _ = os.Stderr.WriteString(err.Error() + "\n")
		os.Exit(1)
	}
}

// write is one life that tells on its standard output. Its appends are on one
// thread, because strace counts calls by thread.
func write(dir string) error {
	runtime.LockOSThread()
	s, err := spool.Open(options(nil, dir))
	if err != nil {
		return err
	}
	t := pipe{os.Stdout}
	if err := offer(context.Background(), s, 20, t); err != nil {
		return errors.Join(err, s.Close())
	}
	return errors.Join(live(context.Background(), s, lifeAppends, t), s.Close())
}

// pipe tells the parent; one write a line, so that what was told was told.
type pipe struct{ w io.Writer }

func (p pipe) Accepted(n int) { _, _ = p.w.Write(fmt.Appendf(nil, "accepted %d\n", n)) }

func (p pipe) Offered(o Offer) {
	_, _ = p.w.Write(fmt.Appendf(nil, "offered %s %d %d %d %d %d %s\n", o.Org, o.Epoch, o.Lane, o.First, o.Count, o.Append, o.Reason))
}

// hear passes on what a writer tells.
func hear(r io.Reader, tell Teller) {
	for lines := bufio.NewScanner(r); lines.Scan(); {
		word := strings.Fields(lines.Text())
		if len(word) == 2 && word[0] == "accepted" {
			if n, err := strconv.Atoi(word[1]); err == nil {
				tell.Accepted(n)
			}
		}
		if len(word) >= 7 && word[0] == "offered" {
			o := Offer{Org: word[1], Reason: strings.Join(word[7:], " ")}
			_, err := fmt.Sscan(strings.Join(word[2:7], " "), &o.Epoch, &o.Lane, &o.First, &o.Count, &o.Append)
			if err == nil {
				tell.Offered(o)
			}
		}
	}
}

// Killer kills writers.
type Killer struct {
	Dir    string // a directory for spools
	Lives  int    // kills of one spool, before all of it is judged
	Random *rand.Rand

	number int
}

// Sweep is what many faults found.
type Sweep struct {
	Faults   int // that hit
	Spools   int
	Accepted int
	GaveWay  uint64
	Lost     int
	Twice    int
	Wrong    []string
	Points   map[string]int // faults by where they hit
}

func (s *Sweep) add(v Verdict) {
	s.Spools++
	s.Accepted += v.Accepted
	s.GaveWay += v.GaveWay
	s.Lost += v.Lost
	s.Twice += v.Duplicated
	s.wrong(v.Wrong)
}

// wrong keeps the first of what is wrong: the rest follows from it.
func (s *Sweep) wrong(list []string) {
	s.Wrong = append(s.Wrong, list...)
	s.Wrong = s.Wrong[:min(len(s.Wrong), 10)]
}

// Merge adds another sweep's findings.
func (s *Sweep) Merge(o *Sweep) {
	s.Faults += o.Faults
	s.Spools += o.Spools
	s.Accepted += o.Accepted
	s.GaveWay += o.GaveWay
	s.Lost += o.Lost
	s.Twice += o.Twice
	s.wrong(o.Wrong)
	for p, n := range o.Points {
		s.hit(p, n)
	}
}

func (s *Sweep) hit(point string, n int) {
	if s.Points == nil {
		s.Points = map[string]int{}
	}
	s.Points[point] += n
}

// Good reports whether nothing was lost, repeated or otherwise wrong.
func (s *Sweep) Good() bool { return s.Lost == 0 && s.Twice == 0 && len(s.Wrong) == 0 }

const lifeAppends = 60

// points are the calls at which writers are killed, and about how many of each
// the thread that appends makes in a life.
var points = []struct {
	call string
	most int
}{
	{"pwrite64", 80}, {"fsync", 80}, {"renameat", 8}, {"unlinkat", 8}, {"openat", 24}, {"write", 60}, {"pwrite64,fsync,renameat,unlinkat", 160},
}

// Spool kills one spool's writer again and again, then judges what is there.
func (k *Killer) Spool(ctx context.Context, into *Sweep) error {
	k.number++
	dir := filepath.Join(k.Dir, fmt.Sprintf("spool%d", k.number))
	o := NewOracle()
	for range k.Lives {
		p := points[k.Random.IntN(len(points))]
		when := 1 + k.Random.IntN(p.most)
		killed, err := k.life(ctx, dir, p.call, when, o)
		if err != nil {
			return err
		}
		if killed {
			into.Faults++
			into.hit(p.call, 1)
		}
	}
	v, err := judge(ctx, nil, dir, o)
	if err != nil {
		return err
	}
	into.add(v)
	if v.Good() { // else it is kept to look at
		return os.RemoveAll(dir)
	}
	return nil
}

// judge opens the spool a last time.
func judge(ctx context.Context, fs spool.FS, dir string, o *Oracle) (Verdict, error) {
	s, err := spool.Open(options(fs, dir))
	if err != nil {
		return Verdict{}, err
	}
	v, err := o.Finish(ctx, s)
	return v, errors.Join(err, s.Close())
}

// life runs a writer under strace, which kills it at the given call.
func (k *Killer) life(ctx context.Context, dir, call string, when int, o *Oracle) (killed bool, err error) {
	self, err := os.Executable()
	if err != nil {
		return false, err
	}
	cmd := exec.CommandContext(ctx, "strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace="+call, //nolint:gosec // our own words
		"-e", fmt.Sprintf("inject=%s:signal=KILL:when=%d", call, when), self)
	cmd.Env = append(os.Environ(), WriterEnv+"="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return false, err
	}
	var complaint strings.Builder
	cmd.Stderr = &complaint
	if err := cmd.Start(); err != nil {
		return false, fmt.Errorf("start strace: %w", err)
	}
	hear(out, o)
	err = cmd.Wait()
	if err == nil {
		return false, nil
	}
	status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if ok && (status.Signaled() && status.Signal() == syscall.SIGKILL || status.ExitStatus() == 128+int(syscall.SIGKILL)) {
		return true, nil
	}
	return false, fmt.Errorf("a writer ended by itself: %w: %s", err, complaint.String())
}
