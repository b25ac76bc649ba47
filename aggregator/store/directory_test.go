package store_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/theazo/observability/aggregator/store"
	"github.com/theazo/observability/aggregator/store/storetest"
	"github.com/theazo/observability/shared/telemetry"
)

func lifecycle(agent telemetry.AgentID, what telemetry.EventType, at time.Time, exit ...int) telemetry.Event {
	e := telemetry.Event{Type: what, Timestamp: at, Origin: telemetry.Origin{Agent: agent, Session: "ses_1", User: "u", Provider: telemetry.Docker, Sandbox: "box"}}
	if len(exit) > 0 {
		e.ExitCode = &exit[0]
	}
	return e
}

func TestAnAgentsStatusFollowsItsEvents(t *testing.T) {
	t.Parallel()
	s := storetest.New(t).Open(t)
	scope := telemetry.Scope{Org: "org_a"}
	sp := newSpool(scope, "nod_1", 1)
	at := time.Now().UTC().Truncate(time.Microsecond)
	after := func(seconds int) time.Time { return at.Add(time.Duration(seconds) * time.Second) }
	for i, step := range []struct {
		event telemetry.Event
		want  telemetry.AgentStatus
	}{
		{lifecycle("agt_a", telemetry.SandboxCreated, at), telemetry.AgentBooting},
		{lifecycle("agt_a", telemetry.SandboxStarted, after(1)), telemetry.AgentRunning},
		{lifecycle("agt_a", telemetry.SandboxPaused, after(2)), telemetry.AgentPaused},
		{lifecycle("agt_a", telemetry.SandboxHealth, after(3)), telemetry.AgentPaused},
		{lifecycle("agt_a", telemetry.SandboxStarted, after(1)), telemetry.AgentPaused}, // told late
		{lifecycle("agt_a", telemetry.SandboxResumed, after(4)), telemetry.AgentRunning},
		{lifecycle("agt_a", telemetry.SandboxOOM, after(5)), telemetry.AgentRunning},
		{lifecycle("agt_a", telemetry.SandboxExited, after(5), 137), telemetry.AgentFailed},
		{lifecycle("agt_b", telemetry.SandboxExited, after(5), 0), telemetry.AgentCompleted},
		{lifecycle("agt_c", telemetry.SandboxExited, after(5)), telemetry.AgentFailed},
	} {
		mustCommit(t, s, sp.records([]telemetry.Event{step.event}, nil))
		a, err := s.Agent(t.Context(), scope, step.event.Agent)
		if err != nil || a.Status != step.want {
			t.Fatalf("step %d: %s, want %s: %v", i, a.Status, step.want, err)
		}
	}
	// Lines that are still on their way do not bring it back to life.
	mustCommit(t, s, sp.numbered(t, "agt_a", 0, 2, after(9)))
	a, err := s.Agent(t.Context(), scope, "agt_a")
	want := telemetry.Agent{
		ID: "agt_a", Session: "ses_agt_a", User: "user", Status: telemetry.AgentFailed, Provider: telemetry.Docker, Sandbox: "box", Node: "nod_1",
		CreatedAt: at, FirstLogAt: after(9), LastLogAt: after(9).Add(time.Millisecond),
	}
	if d := cmp.Diff(want, a); d != "" || err != nil {
		t.Fatal(d, err)
	}
	_, err = s.Agent(t.Context(), telemetry.Scope{Org: "org_b"}, "agt_a")
	code(t, err, telemetry.NotFound)
	_, err = s.Agent(t.Context(), telemetry.Scope{Org: "org_a", Env: telemetry.Test}, "agt_a")
	code(t, err, telemetry.NotFound)
	_, err = s.Session(t.Context(), scope, "ses_none")
	code(t, err, telemetry.NotFound)
}

// Within the slack a commit leaves the row alone; the lines are found all the
// same, by a store that remembers the agent and by one that does not.
func TestLinesAreFoundByAgentHoweverTheirTimesStray(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	stores := []*store.Store{db.Open(t), db.Open(t)}
	scope := telemetry.Scope{Org: "org_a"}
	sp := newSpool(scope, "nod_1", 1)
	at := time.Now()
	lines := 0
	for i, offset := range []time.Duration{0, store.SpanSlack, -store.SpanSlack, store.SpanSlack + time.Second, -store.SpanSlack - time.Second, time.Hour, -30 * 24 * time.Hour, 2 * store.SpanSlack} {
		mustCommit(t, stores[i%2], sp.numbered(t, "agt_a", lines, 2, at.Add(offset)))
		lines += 2
		for _, s := range stores {
			for _, f := range []telemetry.LogFilter{{Agents: []telemetry.AgentID{"agt_a"}}, {Sessions: []telemetry.SessionID{"ses_agt_a"}}} {
				page, err := s.QueryLogs(t.Context(), scope, &telemetry.LogQuery{Limit: 100, LogFilter: f})
				if err != nil || page.Total != int64(lines) || len(page.Entries) != lines {
					t.Fatalf("after %s: total %d, %d entries, want %d: %v", offset, page.Total, len(page.Entries), lines, err)
				}
			}
		}
	}
}

func TestListingsPageNewestFirst(t *testing.T) {
	t.Parallel()
	s := storetest.New(t).Open(t)
	scope := telemetry.Scope{Org: "org_a", Env: telemetry.Test}
	sp, other := newSpool(scope, "nod_1", 1), newSpool(telemetry.Scope{Org: "org_a"}, "nod_1", 2)
	at := time.Now().UTC().Truncate(time.Microsecond)
	mustCommit(t, s, other.numbered(t, "agt_live", 0, 1, at))
	for i := range 7 {
		// Two at a time share their time, so that ids decide.
		mustCommit(t, s, sp.numbered(t, telemetry.AgentID(fmt.Sprintf("agt_%d", i)), 0, 1, at.Add(time.Duration(i/2)*time.Second)))
	}
	mustCommit(t, s, sp.records([]telemetry.Event{lifecycle("agt_6", telemetry.SandboxExited, at, 0)}, nil))
	var got []telemetry.AgentID
	l := telemetry.Listing{Limit: 3}
	for more := true; more; {
		var list []telemetry.Agent
		var err error
		list, more, err = s.Agents(t.Context(), scope, l)
		if err != nil || len(list) == 0 {
			t.Fatal(list, err)
		}
		for _, a := range list {
			got = append(got, a.ID)
		}
		last := list[len(list)-1]
		l.After = &telemetry.ListingKey{CreatedAt: last.CreatedAt, ID: string(last.ID)}
	}
	if d := cmp.Diff([]telemetry.AgentID{"agt_6", "agt_5", "agt_4", "agt_3", "agt_2", "agt_1", "agt_0"}, got); d != "" {
		t.Fatal(d)
	}
	completed := uint8(telemetry.AgentCompleted)
	list, more, err := s.Agents(t.Context(), scope, telemetry.Listing{Limit: 5, Status: &completed})
	if err != nil || more || len(list) != 1 || list[0].ID != "agt_6" {
		t.Fatal(list, more, err)
	}
	list, _, err = s.Agents(t.Context(), scope, telemetry.Listing{Limit: 5, Session: "ses_agt_3"})
	if err != nil || len(list) != 1 || list[0].ID != "agt_3" {
		t.Fatal(list, err)
	}
	sessions, more, err := s.Sessions(t.Context(), scope, telemetry.Listing{Limit: 2})
	if err != nil || !more || len(sessions) != 2 || sessions[0].ID != "ses_agt_6" || sessions[0].Env != telemetry.Test || sessions[0].User != "user" {
		t.Fatal(sessions, more, err)
	}
	one, err := s.Session(t.Context(), scope, "ses_agt_2")
	if err != nil || !one.FirstLogAt.Equal(at.Add(time.Second)) || one.Status != telemetry.SessionActive {
		t.Fatalf("%+v %v", one, err)
	}
}

func TestAClockThatIsFarOffDoesNotDecideAListing(t *testing.T) {
	t.Parallel()
	s := storetest.New(t).Open(t)
	scope := telemetry.Scope{Org: "org_a"}
	mustCommit(t, s, newSpool(scope, "nod_1", 1).numbered(t, "agt_a", 0, 1, time.Now().AddDate(50, 0, 0)))
	a, err := s.Agent(t.Context(), scope, "agt_a")
	if err != nil || time.Until(a.CreatedAt) > time.Hour || a.LastLogAt.Before(time.Now().AddDate(49, 0, 0)) {
		t.Fatalf("%+v %v", a, err)
	}
}
