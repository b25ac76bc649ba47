package localpg

import (
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
	execute(t, s.DSN(), "create table kept as select 7 as n")
	stop(t, s)
	return s
}

// rawPostmaster starts s's program with its arguments, not supervised and not reaped.
func rawPostmaster(t *testing.T, s *Server, args []string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(within(t), s.postgres, args...)
	cmd.Dir = "/"
	if s.user.drop {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(s.user.uid), Gid: uint32(s.user.gid)}}
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
	if n := value(t, again.DSN(), "select n::text from kept"); n != "7" {
		t.Errorf("kept %s, want 7", n)
	}
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
	if n := value(t, again.DSN(), "select n::text from kept"); n != "7" {
		t.Errorf("kept %s, want 7", n)
	}
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
	if n := value(t, again.DSN(), "select n::text from kept"); n != "7" {
		t.Errorf("kept %s, want 7", n)
	}
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

func TestParentIsNotRoot(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can run a parent as another user; all other tests here ran without root")
	}
	dir, err := os.MkdirTemp("", "localpg-nonroot-") // Its parents are open to everybody.
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	nobody, err := user.Lookup("nobody")
	if err != nil {
		t.Fatal(err)
	}
	uid, _ := strconv.Atoi(nobody.Uid)
	gid, _ := strconv.Atoi(nobody.Gid)
	if err := os.Chown(dir, uid, gid); err != nil {
		t.Fatal(err)
	}
	p := startParent(t, dir, &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)})
	execute(t, p.dsn, "create table kept as select 7 as n")
	if got, _, err := owner("/proc/" + strconv.Itoa(p.postmaster)); err != nil || got != uid {
		t.Errorf("PostgreSQL runs as uid %d, want %d", got, uid)
	}
	p.kill9(t)

	// Root beside it keeps the owner, and leaves everything usable to him.
	o := options(t)
	o.Dir = dir
	s := start(t, o)
	if got, _, err := owner("/proc/" + strconv.Itoa(s.PID())); err != nil || got != uid {
		t.Errorf("under root, PostgreSQL runs as uid %d, want %d", got, uid)
	}
	stop(t, s)
	p = startParent(t, dir, &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)})
	if n := value(t, p.dsn, "select n::text from kept"); n != "7" {
		t.Errorf("kept %s, want 7", n)
	}
	p.end(t)
}

func TestAnotherUsersDirectory(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can make a directory that belongs to somebody else")
	}
	dir, err := os.MkdirTemp("", "localpg-others-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	o := options(t)
	o.Dir = dir
	stop(t, start(t, o))
	cmd := exec.CommandContext(within(t), "/proc/self/exe", "-test.run=^$")
	cmd.Env = append(os.Environ(), helperDir+"="+dir)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
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
	if n := value(t, p.dsn, "select n::text from kept"); n != "7" {
		t.Errorf("kept %s, want 7", n)
	}
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
	if n := value(t, again.DSN(), "select n::text from kept"); n != "7" {
		t.Errorf("kept %s, want 7", n)
	}
}
