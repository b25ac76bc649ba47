package localpg

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"time"
)

// makeCluster runs initdb unless there is a cluster. What it has not finished has
// another name, so a crash in between leaves nothing that looks like a cluster.
func (s *Server) makeCluster(ctx context.Context, bin binaries, noSync bool) error {
	l := s.layout
	if _, err := os.Lstat(l.cluster); err == nil {
		return s.adopt()
	}
	begun := time.Now()
	half := filepath.Join(l.dir, unfinished)
	if err := s.evict(ctx, half, bySignal(syscall.SIGKILL)); err != nil {
		return err
	}
	if err := os.RemoveAll(half); err != nil {
		return fmt.Errorf("remove a half-made cluster: %w", err)
	}
	if err := l.own(half, s.user); err != nil {
		return err
	}
	args := []string{
		"--pgdata=" + l.inside(half), "--username=" + database, "--auth=trust", "--data-checksums",
		"--encoding=UTF8", "--no-locale", "--no-instructions",
	}
	if noSync {
		args = append(args, "--no-sync")
	}
	if _, err := run(ctx, s.user, l.files(), bin.initdb, args...); err != nil {
		return fmt.Errorf("make the private PostgreSQL cluster in %s: %w", l.dir, err)
	}
	if err := os.Rename(half, l.cluster); err != nil {
		return fmt.Errorf("finish the private PostgreSQL cluster: %w", err)
	}
	if !noSync {
		if err := syncDir(l.dir); err != nil {
			return err
		}
	}
	s.log.Info("made a private PostgreSQL cluster", "dir", l.cluster, "major", bin.major,
		"user", s.user.name, "elapsed", rounded(time.Since(begun)))
	return nil
}

// adopt checks that the cluster belongs to the user PostgreSQL runs as, and gives
// it to him when root owns it, as after a restore from a backup.
func (s *Server) adopt() error {
	uid, _, err := owner(s.layout.cluster)
	switch {
	case err != nil:
		return err
	case uid == s.user.uid:
		return nil
	case !s.user.drop:
		return fmt.Errorf("the private PostgreSQL in %s belongs to %s: run the aggregator as this user or as root", s.layout.cluster, userName(uid))
	}
	s.log.Warn("the private PostgreSQL cluster belonged to root, giving it to PostgreSQL's user", "dir", s.layout.cluster, "user", s.user.name)
	if err := s.giveCluster(); err != nil {
		return fmt.Errorf("give the cluster to PostgreSQL's user %s: %w", s.user.name, err)
	}
	return s.layout.own(s.layout.cluster, s.user)
}

func (s *Server) giveCluster() error {
	root, err := os.OpenRoot(s.layout.cluster)
	if err != nil {
		return err
	}
	defer root.Close()
	return fs.WalkDir(root.FS(), ".", func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return root.Lchown(path, s.user.uid, s.user.gid)
	})
}

// onOneThread runs f, which starts and awaits a child, on a thread that lives as
// long as the child: the parent-death signal follows the thread.
func onOneThread(f func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	return f()
}
