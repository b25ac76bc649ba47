package execclient

import (
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/theazo/observability/shared/execstream"
)

// Codes that shells use where a command cannot be started, and our own for a
// wrong call.
const (
	exitUsage       = 2
	exitNotRunnable = 126
	exitNotFound    = 127
	exitSignal      = 128
)

const usage = `agentd-exec runs a command and sends a copy of what it prints to agentd.

  agentd-exec [--] CMD ARG…

Everything passes untouched: bytes, stdin, signals, terminal, exit code. Where
the output goes is in the environment:

  THEAZO_ENDPOINT      http://HOST:PORT, http://HOST:PORT/t/TOKEN or unix:///PATH/agentd.sock;
                       without it the command just runs
  THEAZO_AGENT_ID, THEAZO_SESSION_ID
                       whose output it is, where the container's labels say it too
  THEAZO_EXEC_LINGER   how long to go on sending when the command has ended (default: 10s, while that makes progress)

The endpoint never slows the command: what it cannot take is dropped and told as a gap.
`

// Limits of waiting for the endpoint when the command has ended.
const (
	lingerInAll   = 10 * time.Second
	lingerStalled = 500 * time.Millisecond
)

// Main is the program. It returns the exit code.
func Main(args []string, version string) int {
	if len(args) > 0 {
		switch args[0] {
		case "--help", "-h", "-help":
			_, _ = io.WriteString(os.Stdout, usage)
			return 0
		case "--version", "-version":
			_, _ = io.WriteString(os.Stdout, "agentd-exec "+version+"\n")
			return 0
		case "--":
			args = args[1:]
		default:
			if strings.HasPrefix(args[0], "-") {
				_, _ = io.WriteString(os.Stderr, "agentd-exec: unknown flag "+args[0]+"; see agentd-exec --help\n")
				return exitUsage
			}
		}
	}
	if len(args) == 0 {
		_, _ = io.WriteString(os.Stderr, "agentd-exec: give the command after --; see agentd-exec --help\n")
		return exitUsage
	}
	path, err := lookPath(args[0])
	if err != nil {
		return cannotStart(args[0], err)
	}
	to, ok := parseEndpoint(os.Getenv("THEAZO_ENDPOINT"))
	if !ok {
		return cannotStart(args[0], syscall.Exec(path, args, os.Environ())) //nolint:gosec // that is what we are for
	}
	return run(path, args, to, version)
}

func cannotStart(name string, err error) int {
	_, _ = io.WriteString(os.Stderr, "agentd-exec: "+name+": "+err.Error()+"\n")
	if errors.Is(err, syscall.ENOENT) {
		return exitNotFound
	}
	return exitNotRunnable
}

// lookPath finds a command as a shell does.
func lookPath(name string) (string, error) {
	if strings.Contains(name, "/") {
		return name, runnable(name)
	}
	found := error(syscall.ENOENT)
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		if dir == "" {
			dir = "."
		}
		path := filepath.Join(dir, name)
		err := runnable(path)
		if err == nil {
			if !strings.Contains(path, "/") {
				path = "./" + path
			}
			return path, nil
		}
		if errors.Is(err, syscall.EACCES) {
			found = err
		}
	}
	return "", found
}

func runnable(path string) error {
	info, err := os.Stat(path) //nolint:gosec // the command that we were called with
	switch {
	case errors.Is(err, syscall.ENOTDIR):
		return syscall.ENOENT
	case err != nil:
		if errno, ok := errors.AsType[syscall.Errno](err); ok {
			return errno
		}
		return err
	case info.IsDir() || info.Mode()&0o111 == 0:
		return syscall.EACCES
	}
	return nil
}

// run runs the command with a copy of its output to the endpoint.
func run(path string, args []string, to endpoint, version string) int {
	outputs, err := newOutputs()
	if err != nil {
		return cannotStart(args[0], syscall.Exec(path, args, os.Environ())) //nolint:gosec // without descriptors for a copy: the command alone
	}
	signals := make(chan os.Signal, 64)
	for _, s := range forwarded {
		if !signal.Ignored(s) { // as under nohup: the command inherits that
			signal.Notify(signals, s)
		}
	}
	// A reader that leaves is told to the command by its own SIGPIPE, not by ours.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	r := newRecorder()
	started := time.Now()
	process, err := os.StartProcess(path, args, &os.ProcAttr{Env: os.Environ(), Files: outputs.files(), Sys: outputs.attributes()}) //nolint:gosec // that is what we are for
	outputs.started()
	if err != nil {
		outputs.restore()
		return cannotStart(args[0], err)
	}
	s := &sender{to: to, r: r, agent: "agentd-exec/" + version, hello: hello(args, outputs.terminal(), started)}
	go s.run()
	stop := forward(signals, process, outputs)
	copied := outputs.copy(r)
	state, err := process.Wait()
	copied()
	stop()
	outputs.restore()
	code, exit := ending(state, err, started)
	r.end(exit)
	linger(r)
	return code
}

func hello(args []string, terminal bool, started time.Time) []byte {
	h := execstream.Hello{
		ID: newID(), Command: shortened(args), TTY: terminal, StartedAt: started.UTC(),
		Agent: os.Getenv("THEAZO_AGENT_ID"), Session: os.Getenv("THEAZO_SESSION_ID"),
	}
	return h.AppendJSON(nil)
}

// newID is one that no other session has; it need not be a secret.
func newID() string {
	const digits = "0123456789abcdefghjkmnpqrstvwxyz"
	id := []byte("exec_")
	for range 20 {
		id = append(id, digits[rand.N(len(digits))]) //nolint:gosec // see above
	}
	return string(id)
}

// shortened keeps the beginning of a long command line.
func shortened(args []string) []string {
	const most = 8 << 10
	left := most
	for i, a := range args {
		if left -= len(a) + 1; left < 0 {
			return append(args[:i:i], "…")
		}
	}
	return args
}

// ending is the exit code, and what agentd is told of it.
func ending(state *os.ProcessState, err error, started time.Time) (code int, exit func(stdout, stderr int64) []byte) {
	e := execstream.Exit{Code: exitNotRunnable, DurationMS: time.Since(started).Milliseconds(), EndedAt: time.Now().UTC()}
	if err == nil {
		if status, ok := state.Sys().(syscall.WaitStatus); ok && status.Signaled() {
			e.Code, e.Signal = exitSignal+int(status.Signal()), signalName(status.Signal())
		} else {
			e.Code = state.ExitCode()
		}
	}
	return e.Code, func(stdout, stderr int64) []byte {
		e.Stdout, e.Stderr = stdout, stderr
		return e.AppendJSON(nil)
	}
}

// linger waits until agentd has all, for as long as that makes progress.
func linger(r *recorder) {
	inAll, patient := lingerInAll, false
	if d, err := time.ParseDuration(os.Getenv("THEAZO_EXEC_LINGER")); err == nil && d >= 0 {
		inAll, patient = d, true
	}
	limit := time.NewTimer(inAll)
	tick := time.NewTicker(10 * time.Millisecond)
	for {
		select {
		case <-r.ended:
			return
		case <-limit.C:
			return
		case <-tick.C:
			if !patient && r.stalled(lingerStalled) {
				return
			}
		}
	}
}
