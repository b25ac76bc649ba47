package store

import (
	"cmp"
	"slices"
	"strings"

	"github.com/theazo/observability/shared/telemetry"
)

// Lines are asked for by session or by agent, and a query decodes each chunk
// that has some of them. So lines of one session shall be in few chunks, and
// those of one agent too. Which is possible as far as they keep to each other:
//
//   - A team is all sessions and agents that lines connect, one by the other.
//     Teams stay together; mostly one fills less than a chunk.
//   - In a team of A agents, S sessions and P pairs of them, the order (session,
//     agent) makes P/A pieces of an agent's lines, (agent, session) makes P/S of a
//     session's. The smaller is taken: sessions first, unless they outnumber the
//     agents.

// lineOwner is whose a line is.
type lineOwner struct {
	session telemetry.SessionID
	agent   telemetry.AgentID
}

func bySession(x, y lineOwner) int {
	return cmp.Or(strings.Compare(string(x.session), string(y.session)), strings.Compare(string(x.agent), string(y.agent)))
}

func byAgent(x, y lineOwner) int {
	return cmp.Or(strings.Compare(string(x.agent), string(y.agent)), strings.Compare(string(x.session), string(y.session)))
}

// ownerRanks numbers the owners of origins in the order in which their lines are
// to come, so that lines are compared by numbers. Teams come by their lowest owner.
func ownerRanks(origins []telemetry.Origin) []uint32 {
	owners := make([]lineOwner, len(origins))
	for i := range origins {
		owners[i] = lineOwner{session: origins[i].Session, agent: origins[i].Agent}
	}
	sorted := slices.Clone(owners)
	slices.SortFunc(sorted, bySession)
	sorted = slices.Compact(sorted)
	teams := newTeams(sorted)
	order := make([]int, len(sorted))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(i, j int) int {
		x, y := teams.of(i), teams.of(j)
		switch {
		case x != y:
			return x - y
		case teams.sessions[x] > teams.agents[x]:
			return byAgent(sorted[i], sorted[j])
		}
		return i - j
	})
	rank := make(map[lineOwner]uint32, len(sorted))
	for r, i := range order {
		rank[sorted[i]] = uint32(r)
	}
	ranks := make([]uint32, len(owners))
	for i, o := range owners {
		ranks[i] = rank[o]
	}
	return ranks
}

// teams are disjoint sets of owners, by their indices; the lowest stands for
// the team. The counts are of it alone.
type teams struct {
	parent           []int
	sessions, agents []int
}

// newTeams connects owners. Lines without a session, or agent, are not connected by
// that.
func newTeams(owners []lineOwner) *teams {
	t := &teams{parent: make([]int, len(owners)), sessions: make([]int, len(owners)), agents: make([]int, len(owners))}
	sessions, agents := map[telemetry.SessionID]int{}, map[telemetry.AgentID]int{}
	for i, o := range owners {
		t.parent[i] = i
		if first, known := sessions[o.session]; known && o.session != "" {
			t.join(first, i)
		} else if !known {
			sessions[o.session] = i
		}
		if first, known := agents[o.agent]; known && o.agent != "" {
			t.join(first, i)
		} else if !known {
			agents[o.agent] = i
		}
	}
	for _, i := range sessions {
		t.sessions[t.of(i)]++
	}
	for _, i := range agents {
		t.agents[t.of(i)]++
	}
	return t
}

// of returns the team of owner i.
func (t *teams) of(i int) int {
	for t.parent[i] != i {
		t.parent[i] = t.parent[t.parent[i]]
		i = t.parent[i]
	}
	return i
}

func (t *teams) join(i, j int) {
	i, j = t.of(i), t.of(j)
	t.parent[max(i, j)] = min(i, j)
}
