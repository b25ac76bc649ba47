package ids_test

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/theazo/observability/shared/ids"
	"github.com/theazo/observability/shared/telemetry"
)

func TestLogIDRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		k := ids.LogKey{
			Micros: rapid.Int64Range(-1<<54, 1<<54).Draw(t, "us"), Agent: rapid.Uint16().Draw(t, "agent"),
			Source: rapid.Uint64Range(0, 1<<48-1).Draw(t, "source"), Seq: rapid.Uint64Range(0, 1<<40-1).Draw(t, "seq"),
		}
		id := ids.Log(k)
		got, err := ids.ParseLog(string(id))
		if err != nil || got != k {
			t.Fatalf("%s: got %+v (%v), want %+v", id, got, err, k)
		}
		later := k
		later.Micros++
		if ids.Log(later) <= id {
			t.Fatalf("a later entry has a smaller id")
		}
	})
}

func TestParseLogRefusesWhatIsNoLogID(t *testing.T) {
	for _, s := range []string{"", "log_", "agt_x", "log_" + strings.Repeat("u", 32), "log_" + strings.Repeat("0", 31)} {
		if _, err := ids.ParseLog(s); err == nil {
			t.Errorf("%q was taken", s)
		}
	}
}

func TestCredentialsSurviveOnlyUnchanged(t *testing.T) {
	authority := ids.HashOf("the authority's certificate")
	id, key := ids.NewAPIKey(telemetry.Test)
	checks := map[string]struct {
		text  string
		check func(string) error
	}{
		"api key": {key, func(s string) error {
			got, env, err := ids.ParseAPIKey(s)
			if err == nil && (got != id || env != telemetry.Test) {
				t.Errorf("parsed to %s %s", got, env)
			}
			return err
		}},
		"stream token": {ids.NewStreamToken(), ids.CheckStreamToken},
		"join token": {ids.NewJoinToken(authority), func(s string) error {
			got, err := ids.ParseJoinToken(s)
			if err == nil && got != authority {
				t.Errorf("the authority is %x, want %x", got, authority)
			}
			return err
		}},
	}
	for name, c := range checks {
		if err := c.check(c.text); err != nil {
			t.Errorf("%s %s refused: %v", name, c.text, err)
		}
		for i := range c.text {
			for _, r := range []byte{'x', '0', '_', 0} {
				if c.text[i] == r {
					continue
				}
				if bad := c.text[:i] + string(rune(r)) + c.text[i+1:]; c.check(bad) == nil {
					t.Errorf("%s: accepted with byte %d changed", name, i)
				}
			}
			if c.check(c.text[:i]) == nil {
				t.Errorf("%s: accepted when cut at %d", name, i)
			}
		}
	}
}

func TestNewIDsHaveTheirForm(t *testing.T) {
	a, b := ids.New("org"), ids.New("org")
	if a == b || len(a) != len("org_")+20 {
		t.Fatalf("ids %s and %s", a, b)
	}
	if err := telemetry.CheckID(a); err != nil {
		t.Fatal(err)
	}
	agent := ids.AgentOf(telemetry.Docker, "4f5e")
	if agent != ids.AgentOf(telemetry.Docker, "4f5e") || agent == ids.AgentOf(telemetry.Fly, "4f5e") {
		t.Fatalf("agent id %s is not stable per sandbox", agent)
	}
}

func TestSpansWithoutIDsGetSome(t *testing.T) {
	trace := ids.TraceOf("agt_1")
	if trace != ids.TraceOf("agt_1") || trace == ids.TraceOf("agt_2") || len(trace) != len("trc_")+32 {
		t.Errorf("trace %s", trace)
	}
	if a, b := ids.NewSpan(), ids.NewSpan(); a == b || len(a) != len("spn_")+16 || !strings.HasPrefix(string(a), "spn_") {
		t.Errorf("spans %s and %s", a, b)
	}
}
