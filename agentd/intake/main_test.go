package intake

import (
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/theazo/observability/shared/segment"
	"github.com/theazo/observability/shared/telemetry"
)

func TestMain(m *testing.M) {
	// The codec's shared encoder and decoder make their channels when they are
	// first used: not inside a synctest bubble, from which other tests could not
	// use them.
	var w segment.Writer
	w.Append(&telemetry.LogEntry{Message: strings.Repeat("warm ", 1000)})
	s, err := segment.Parse(w.Encode(nil))
	if err == nil {
		err = s.Read().DecodeAll()
	}
	if err != nil {
		panic("warm up the codec: " + err.Error())
	}
	goleak.VerifyTestMain(m)
}
