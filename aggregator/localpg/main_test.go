package localpg

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if os.Getenv(helperDir) != "" {
		os.Exit(helper())
	}
	goleak.VerifyTestMain(m)
}
