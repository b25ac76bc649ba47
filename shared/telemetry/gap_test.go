package telemetry_test

import (
	"testing"

	"github.com/theazo/observability/shared/telemetry"
)

func TestAGapOfAnotherSandboxDoesNotShow(t *testing.T) {
	of := func(agent, session, sandbox string) telemetry.Gap {
		return telemetry.Gap{Agent: telemetry.AgentID(agent), Session: telemetry.SessionID(session), Sandbox: telemetry.SandboxID(sandbox), Node: "nod_1"}
	}
	byAgent := telemetry.LogFilter{Agents: []telemetry.AgentID{"agt_a"}}
	bySession := telemetry.LogFilter{Sessions: []telemetry.SessionID{"ses_a"}}
	bySandbox := telemetry.LogFilter{Sandbox: []telemetry.SandboxID{"sb_a"}}
	isSession, err := telemetry.ExprIs(telemetry.FieldSession, "ses_a")
	if err != nil {
		t.Fatal(err)
	}
	bySessionQuery := telemetry.LogFilter{Where: isSession}
	byNode := telemetry.LogFilter{Nodes: []telemetry.NodeID{"nod_2"}}
	for _, c := range []struct {
		gap                                   telemetry.Gap
		none, agent, session, sandbox, onNode bool
	}{
		{of("agt_a", "ses_a", "sb_a"), true, true, true, true, false},
		{of("agt_b", "ses_b", "sb_b"), true, false, false, false, false},
		{of("agt_b", "", "sb_b"), true, false, false, false, false}, // a sandbox without a session is in none
		{of("agt_a", "", ""), true, true, false, true, false},
		{of("", "", ""), true, true, true, true, false}, // of the whole node
		{of("", "ses_b", ""), true, true, false, true, false},
		{of("", "", "sb_b"), true, true, true, false, false},
	} {
		var all telemetry.LogFilter
		for name, got := range map[string][2]bool{
			"everything": {all.MatchGap(&c.gap), c.none}, "the agent": {byAgent.MatchGap(&c.gap), c.agent}, "the session": {bySession.MatchGap(&c.gap), c.session},
			"a query for the session": {bySessionQuery.MatchGap(&c.gap), c.session},
			"the sandbox":             {bySandbox.MatchGap(&c.gap), c.sandbox}, "another node": {byNode.MatchGap(&c.gap), c.onNode},
		} {
			if got[0] != got[1] {
				t.Errorf("%+v beside lines of %s: %v", c.gap, name, got[0])
			}
		}
	}
}
