package push

import (
	"context"
	"crypto/sha256"
	"fmt"

	"github.com/theazo/observability/shared/frame"
	"github.com/theazo/observability/shared/ids"
	"github.com/theazo/observability/shared/telemetry"
)

// claim gives the frames the sequences of their idempotency key: the same for
// the same request, whenever and wherever it comes again, so that the store's
// marks recognise it. How a body is cut into frames depends on nothing but the
// body.
func (t *taking) claim(ctx context.Context, frames []*frame.Received) error {
	body := sha256.Sum256(append([]byte(t.signal.String()+"\x00"), t.body...))
	epoch, first, err := t.Keys.ClaimKey(ctx, t.scope, sha256.Sum256([]byte(t.key)), ids.Epoch(), body)
	if err != nil {
		return fmt.Errorf("push: claim an idempotency key: %w", err)
	}
	if first != body {
		f := telemetry.Failf(telemetry.Unprocessable, "This Idempotency-Key was used with another body: give each request a key of its own, and repeat it only as it was.")
		f.Fields = []telemetry.FieldError{{Field: "Idempotency-Key", Detail: "was used with another body"}}
		return f
	}
	next := [telemetry.NumLanes]uint64{1, 1}
	for _, f := range frames {
		f.Epoch, f.First = epoch, next[f.Lane]
		next[f.Lane] += uint64(f.Count)
	}
	return nil
}
