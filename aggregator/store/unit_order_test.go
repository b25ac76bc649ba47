package store

import (
	"cmp"
	"slices"
	"strings"
	"testing"

	"github.com/theazo/observability/shared/telemetry"
)

func TestLinesOfATeamStayTogether(t *testing.T) {
	for _, c := range []struct{ name, owners, want string }{
		{"agents of one session each", "s2/c s1/b s1/a s2/d", "s1/a s1/b s2/c s2/d"},
		{"an agent of many sessions", "s3/a s1/a s2/b s4/b", "s1/a s3/a s2/b s4/b"},
		{"fewer agents than sessions", "s1/a s1/b s2/a s2/b s3/a s3/b", "s1/a s2/a s3/a s1/b s2/b s3/b"},
		{"as many agents as sessions", "s1/a s1/b s2/a s2/b", "s1/a s1/b s2/a s2/b"},
		{"one agent of all sessions, and others", "s1/x s1/a s1/b s2/x s2/c s2/d", "s1/a s1/b s1/x s2/c s2/d s2/x"},
		{"no session connects nobody", "/b /a s1/a s2/b", "/a s1/a /b s2/b"},
		{"no agent connects nobody", "s2/ s1/ s1/b s2/a", "s1/ s1/b s2/ s2/a"},
		{"two teams", "s1/b s2/a s3/b s4/a", "s1/b s3/b s2/a s4/a"},
	} {
		t.Run(c.name, func(t *testing.T) {
			names := strings.Fields(c.owners)
			origins := make([]telemetry.Origin, len(names))
			for i, name := range names {
				session, agent, _ := strings.Cut(name, "/")
				origins[i] = telemetry.Origin{Session: telemetry.SessionID(session), Agent: telemetry.AgentID(agent)}
			}
			ranks := ownerRanks(origins)
			order := make([]int, len(names))
			for i := range order {
				order[i] = i
			}
			slices.SortFunc(order, func(i, j int) int { return cmp.Compare(ranks[i], ranks[j]) })
			var got []string
			for _, i := range order {
				got = append(got, names[i])
			}
			if strings.Join(got, " ") != c.want {
				t.Errorf("%s, want %s", strings.Join(got, " "), c.want)
			}
		})
	}
}
