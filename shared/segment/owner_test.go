package segment_test

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"github.com/theazo/observability/shared/segment"
	"github.com/theazo/observability/shared/telemetry"
)

func TestOwnersDenyNobodyWhoHasLines(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		sessions, agents := rapid.IntRange(1, 3000).Draw(t, "sessions"), rapid.IntRange(1, 300).Draw(t, "agents")
		c := chunkOfOwners(sessions, agents)
		for i := range sessions {
			if c.Sessions == nil && !segment.SessionOwner(session(i)).In(c.Owners) {
				t.Fatalf("session %d of %d is denied", i, sessions)
			}
		}
		for i := range agents {
			if c.Agents == nil && !segment.AgentOwner(agent(i)).In(c.Owners) {
				t.Fatalf("agent %d of %d is denied", i, agents)
			}
		}
	})
}

func TestOwnersDenyMostOthers(t *testing.T) {
	c := chunkOfOwners(400, 10)
	if c.Sessions != nil || c.Agents == nil || len(c.Owners) != 600 {
		t.Fatalf("%d sessions and %d agents are listed, %d bytes of owners", len(c.Sessions), len(c.Agents), len(c.Owners))
	}
	wrong := 0
	for i := range 10_000 {
		if segment.SessionOwner(session(1000 + i)).In(c.Owners) {
			wrong++
		}
	}
	if wrong > 200 {
		t.Errorf("%d of 10,000 sessions without lines are not denied", wrong)
	}
}

func session(i int) telemetry.SessionID { return telemetry.SessionID(fmt.Sprintf("ses_%08x", i*7919)) }

func agent(i int) telemetry.AgentID { return telemetry.AgentID(fmt.Sprintf("agt_%08x", i*7919)) }

// chunkOfOwners is a chunk in which each has a line.
func chunkOfOwners(sessions, agents int) *segment.Chunk {
	var w segment.Writer
	for i := range max(sessions, agents) {
		w.Append(&telemetry.LogEntry{Message: "m", Origin: telemetry.Origin{Session: session(i % sessions), Agent: agent(i % agents)}})
	}
	s, err := segment.Parse(w.Encode(nil))
	if err != nil {
		panic(err)
	}
	lines := s.Read()
	if err := lines.DecodeAll(); err != nil {
		panic(err)
	}
	var chunk segment.ChunkWriter
	for i := range s.Lines {
		chunk.Append(lines, i, segment.Place{Position: int64(i)})
	}
	return chunk.Encode()
}
