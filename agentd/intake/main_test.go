package intake

import (
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/theazo/observability/shared/segment"
	"github.com/theazo/observability/shared/telemetry"
)

func TestMain(m *testing.M) {
	// The codec's shared encoder makes its channels when it is first used: not
	// inside a synctest bubble, from which other tests could not use it.
	var w segment.Writer
	w.Append(&telemetry.LogEntry{Message: strings.Repeat("warm ", 1000)})
	w.Encode(nil)
	goleak.VerifyTestMain(m)
}
