package sandbox

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"strings"
	"time"

	"github.com/theazo/observability/agentd/source"
	"github.com/theazo/observability/shared/telemetry"
)

// Positions of this source. "open/…" is there while something that a sandbox
// sent may be queued and not durable; "exec/…" says how far an exec session is
// durable (exec.go).
const openPrefix = "open/"

var forgotten = json.RawMessage("null")

// note is the value of an open position.
type note struct {
	claims
	At time.Time `json:"at"` // of the newest batch that is durable
}

func openKey(t source.Target) string {
	b, _ := json.Marshal(claimsOf(t)) // plain texts and numbers
	h := sha256.Sum256(b)
	return openPrefix + hex.EncodeToString(h[:12])
}

func openNote(t source.Target, at time.Time) json.RawMessage {
	b, _ := json.Marshal(note{claimsOf(t), at.UTC().Truncate(time.Microsecond)}) // as above
	return b
}

// uncleanStop tells which sandboxes were speaking when an earlier process was
// killed: what they had sent last cannot be read again.
func (q *queues) uncleanStop(ctx context.Context, resume source.Positions) error {
	for key, value := range resume {
		if !strings.HasPrefix(key, openPrefix) {
			continue
		}
		b := &source.Batch{Positions: source.Positions{key: forgotten}}
		var n note
		if json.Unmarshal(value, &n) == nil {
			b.Target = n.target()
			b.Gaps = []telemetry.Gap{{
				Reason: telemetry.GapUncleanStop, Count: telemetry.GapUnknownCount, Since: n.At, Until: time.Now().UTC(),
				Agent: n.Agent, Session: n.Session, Sandbox: n.Sandbox,
				Detail: "agentd was killed while this sandbox was sending to the node's local endpoint; what it had sent last may be missing.",
			}}
		}
		if err := q.to.Emit(ctx, b); err != nil {
			return err
		}
	}
	return nil
}
