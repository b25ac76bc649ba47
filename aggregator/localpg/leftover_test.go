package localpg

import (
	"errors"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// made is a stopped server with its cluster.
func made(t *testing.T, o Options) *Server {
	t.Helper()
	s := start(t, o)
	stop(t, s)
	return s
}

// rawPostmaster starts s's program with its arguments, not supervised and not reaped.
func rawPostmaster(t *testing.T, s *Server, args []string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(within(t), s.postgres, args...)
	cmd.Dir = "/"
	if s.user.drop {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.user.credential()}
	}
	entry, err := os.Open(s.layout.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer entry.Close()
	cmd.ExtraFiles = []*os.File{entry}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	answers(t, s.DSN())
	return cmd
}

func TestZombieHoldsTheLockFiles(t *testing.T) {
	t.Parallel()
	o := options(t)
	s := made(t, o)
	cmd := rawPostmaster(t, s, s.args)
	kill(t, cmd.Process.Pid, syscall.SIGKILL)
	status := "/proc/" + strconv.Itoa(cmd.Process.Pid) + "/status"
	until(t, "it is a zombie", func() bool {
		data, err := os.ReadFile(status)
		return err == nil && strings.Contains(string(data), "State:\tZ")
	})
	for _, path := range []string{filepath.Join(s.layout.cluster, "postmaster.pid"), s.layout.socket() + ".lock"} {
		if _, err := os.Stat(path); err != nil {
			t.Fatalf("the trap is not set: %v", err)
		}
	}
	again := start(t, o)
	checkKept(t, again.DSN())
	if data, err := os.ReadFile(status); err != nil || !strings.Contains(string(data), "State:\tZ") {
		t.Errorf("the zombie did not last as long as the test needs: %v", err)
	}
}

func TestStrangerHasThePid(t *testing.T) {
	t.Parallel()
	o := options(t)
	s := made(t, o)
	stranger := strconv.Itoa(os.Getppid()) // Alive, and no PostgreSQL.
	for _, path := range []string{filepath.Join(s.layout.cluster, "postmaster.pid"), s.layout.socket() + ".lock"} {
		if err := os.WriteFile(path, []byte(stranger+"\n"+s.layout.cluster+"\n1\n5432\n\n\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	again := start(t, o)
	checkKept(t, again.DSN())
}

func TestOrphanIsAwaited(t *testing.T) {
	t.Parallel()
	o := options(t)
	s := made(t, o)
	cmd := rawPostmaster(t, s, s.args)
	busy(t, s.DSN())
	reaped := make(chan struct{})
	go func() { defer close(reaped); _ = cmd.Wait() }()
	again := start(t, o)
	<-reaped
	if again.PID() == cmd.Process.Pid {
		t.Error("the orphan was taken over")
	}
	checkKept(t, again.DSN())
}

func TestAdministratorsServerIsLeftAlone(t *testing.T) {
	t.Parallel()
	o := options(t)
	s := made(t, o)
	at := slices.Index(s.args, "cluster_name="+mark)
	args := slices.Delete(slices.Clone(s.args), at-1, at+1)
	cmd := rawPostmaster(t, s, args)
	again, err := Start(within(t), o)
	if err == nil {
		stop(t, again)
		t.Fatal("started beside it")
	}
	if !strings.Contains(err.Error(), "pid "+strconv.Itoa(cmd.Process.Pid)) {
		t.Errorf("the error does not name it: %v", err)
	}
	if got := value(t, s.DSN(), "select 'alive'"); got != "alive" {
		t.Errorf("it says %q", got)
	}
}

// openDir is a temporary directory that other users reach.
func openDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func lookUp(t *testing.T, name string) account {
	t.Helper()
	u, err := user.Lookup(name)
	if err != nil {
		t.Fatal(err)
	}
	uid, err1 := strconv.Atoi(u.Uid)
	gid, err2 := strconv.Atoi(u.Gid)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	return account{uid: uid, gid: gid, name: name}
}

func TestParentIsNotRoot(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can run a parent as another user; all other tests here ran without root")
	}
	nobody := lookUp(t, "nobody")
	dir := openDir(t)
	if err := os.Chown(dir, nobody.uid, nobody.gid); err != nil {
		t.Fatal(err)
	}
	p := startParent(t, dir, nobody.credential())
	makeKept(t, p.dsn)
	if got, _, err := owner("/proc/" + strconv.Itoa(p.postmaster)); err != nil || got != nobody.uid {
		t.Errorf("PostgreSQL runs as uid %d, want %d", got, nobody.uid)
	}
	p.kill9(t)

	// Root beside it keeps the owner, and leaves everything usable to him.
	o := empty(t)
	o.Dir = dir
	s := start(t, o)
	if got, _, err := owner("/proc/" + strconv.Itoa(s.PID())); err != nil || got != nobody.uid {
		t.Errorf("under root, PostgreSQL runs as uid %d, want %d", got, nobody.uid)
	}
	stop(t, s)
	p = startParent(t, dir, nobody.credential())
	checkKept(t, p.dsn)
	p.end(t)
}

func TestAnotherUsersDirectory(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can make a directory that belongs to somebody else")
	}
	dir := filepath.Join(openDir(t), "pg")
	if err := os.Mkdir(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(within(t), "/proc/self/exe", "-test.run=^$")
	cmd.Env = append(os.Environ(), helperDir+"="+dir)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: lookUp(t, "nobody").credential()}
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "run this as root or as the owner") {
		t.Errorf("%v: %s", err, out)
	}
}

// A container's root may not look into processes of other users.
func TestRootWithoutPtrace(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("concerns a parent that is root")
	}
	o := options(t)
	s := made(t, o)
	cmd := rawPostmaster(t, s, s.args)
	reaped := make(chan struct{})
	go func() { defer close(reaped); _ = cmd.Wait() }()
	p := startParent(t, o.Dir, nil, helperDrop+"=1")
	<-reaped
	checkKept(t, p.dsn)
	p.end(t)
}

func TestRestoredByRoot(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can restore files that belong to root")
	}
	o := options(t)
	s := made(t, o)
	err := filepath.WalkDir(s.layout.cluster, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, 0, 0)
	})
	if err != nil {
		t.Fatal(err)
	}
	again := start(t, o)
	checkKept(t, again.DSN())
}
