package agentd

import (
	"strings"
	"testing"

	"github.com/theazo/observability/agentd/spool"
	"github.com/theazo/observability/shared/telemetry"
	"github.com/theazo/observability/shared/wire"
)

func TestATombstoneSaysWhatHappened(t *testing.T) {
	for reason, want := range map[string]struct {
		gap  telemetry.GapReason
		text string
	}{"corrupt": {telemetry.GapCorrupt, "damaged on disk"}, "forgotten": {telemetry.GapForgotten, "restore of its database"}, "evicted": {telemetry.GapEvicted, "was full"}} {
		r, _, err := wire.DecodeRecords(tombstoneBody(spool.Missing{First: 41, Count: 3, Reason: reason}))
		if err != nil || r.Len() != 1 || len(r.Gaps) != 1 {
			t.Fatal(r, err)
		}
		if g := r.Gaps[0]; g.Reason != want.gap || g.Count != 3 || g.FirstSeq != 41 || g.LastSeq != 43 || !strings.Contains(g.Detail, want.text) {
			t.Errorf("%s: %+v", reason, g)
		}
	}
}
