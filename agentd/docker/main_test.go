package docker

import (
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/theazo/observability/test/dockertest"
)

func TestMain(m *testing.M) {
	os.Exit(dockertest.Main(m, func() int {
		code := m.Run()
		if code == 0 {
			// The test's own client of the engine keeps a connection.
			if err := goleak.Find(goleak.IgnoreTopFunction("internal/poll.runtime_pollWait"),
				goleak.IgnoreAnyFunction("net/http.(*persistConn).readLoop"), goleak.IgnoreAnyFunction("net/http.(*persistConn).writeLoop")); err != nil {
				_, _ = os.Stderr.WriteString("goroutines leaked: " + err.Error() + "\n")
				return 1
			}
		}
		return code
	}))
}
