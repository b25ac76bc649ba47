package sandbox

import (
	"errors"
	"net/http"

	"github.com/theazo/observability/shared/telemetry"
)

var errNoExec = errors.New("exec sessions are not taken")

func (s *Source) exec(w http.ResponseWriter, _ *http.Request) {
	fail(w, &telemetry.Failure{Code: telemetry.Unavailable, Message: "not yet", Cause: errNoExec})
}
