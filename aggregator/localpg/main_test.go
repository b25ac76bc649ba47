package localpg

import (
	"context"
	"fmt"
	"io"
	"os"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// The test binary is also the parent process that tests kill: helperDir makes it
// run a server there until its standard input ends.
const (
	helperDir  = "LOCALPG_TEST_DIR"
	helperDrop = "LOCALPG_TEST_WITHOUT_PTRACE" // first give up what root lacks in a container
)

func TestMain(m *testing.M) {
	if os.Getenv(helperDir) == "" {
		goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
			if len(idle) > 0 {
				if dir, err := clusters(); err == nil {
					os.RemoveAll(dir)
				}
			}
			os.Exit(code)
		}))
	}
	if err := helper(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func helper() error {
	if os.Getenv(helperDrop) != "" {
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, unix.CAP_SYS_PTRACE, 0, 0, 0); err != nil {
			return err
		}
		os.Unsetenv(helperDrop)
		return unix.Exec("/proc/self/exe", os.Args, os.Environ())
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	s, err := Start(ctx, Options{
		Dir:      os.Getenv(helperDir),
		Log:      hclog.New(&hclog.LoggerOptions{Name: "parent", Level: hclog.Debug}),
		NoSync:   true,
		Settings: map[string]string{"shared_buffers": "16MB"},
	})
	if err != nil {
		return err
	}
	fmt.Fprintln(os.Stdout, "ready", s.PID(), s.DSN())
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return err
	}
	return s.Stop(ctx)
}
