package docker

import (
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/theazo/observability/agentd/source"
	"github.com/theazo/observability/shared/ids"
	"github.com/theazo/observability/shared/telemetry"
)

// Identity comes from labels, only from valid ones.
func TestIdentity(t *testing.T) {
	registry := prometheus.NewRegistry()
	m, err := newMetrics(registry)
	if err != nil {
		t.Fatal(err)
	}
	bad := func(label, _ string, _ error) { m.badLabels.WithLabelValues(label).Inc() }
	d := &details{ID: strings.Repeat("a", 64), Labels: map[string]string{
		labelAgent: "agt_1", labelSession: "ses 1", labelUser: "anna@example.org", labelOrg: strings.Repeat("x", 129), labelEnv: "test",
	}}
	got := identify(&Config{DefaultOrg: "org_default"}, d, bad)
	want := source.Target{Org: "org_default", Env: telemetry.Test, Origin: telemetry.Origin{
		Agent: "agt_1", User: "anna@example.org", Provider: telemetry.Docker, Sandbox: telemetry.SandboxID(d.ID), Source: telemetry.SourceAgent,
	}}
	if got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "agentd_docker_bad_labels_total" && len(f.GetMetric()) != 2 {
			t.Errorf("bad labels: %v, want 2", f.GetMetric())
		}
	}
	d.Labels = nil
	if got := identify(&Config{}, d, bad); got.Origin.Agent != ids.AgentOf(telemetry.Docker, telemetry.SandboxID(d.ID)) || got.Env != telemetry.Live {
		t.Errorf("without labels: %+v", got)
	}
}

func TestSelection(t *testing.T) {
	d := &details{Name: "agent-7", Image: "registry/agents", Labels: map[string]string{"tier": "prod", "x": ""}}
	for _, c := range []struct {
		include, exclude []string
		want             bool
	}{
		{nil, nil, true},
		{[]string{"name=agent-*"}, nil, true},
		{[]string{"name=other"}, nil, false},
		{[]string{"name=other", "image=registry/*"}, nil, true},
		{[]string{"label=tier"}, []string{"label=tier=prod"}, false},
		{[]string{"label=tier=p*"}, []string{"label=y"}, true},
		{nil, []string{"label=x"}, false},
	} {
		s, err := newSelection(&Config{Include: c.include, Exclude: c.exclude})
		if err != nil || s.wants(d) != c.want {
			t.Errorf("include %v, exclude %v: %v (%v)", c.include, c.exclude, s.wants(d), err)
		}
	}
	for _, bad := range []Config{
		{Include: []string{"agent"}},
		{Exclude: []string{"colour=red"}},
		{Include: []string{"name=["}},
		{From: "yesterday"},
		{DefaultOrg: "org 1"},
		{Files: []string{"["}},
	} {
		if _, err := New(bad, hclog.NewNullLogger(), prometheus.NewRegistry()); err == nil {
			t.Errorf("%+v was taken", bad)
		}
	}
}

// A reload makes a new source beside the registry of the old one.
func TestSourcesShareTheirMetrics(t *testing.T) {
	registry := prometheus.NewRegistry()
	for _, cfg := range []Config{{}, {}, {Files: []string{"/nowhere/*"}}} {
		if _, err := New(cfg, hclog.NewNullLogger(), registry); err != nil {
			t.Fatal(err)
		}
	}
	first, err1 := newMetrics(registry)
	second, err2 := newMetrics(registry)
	if err1 != nil || err2 != nil || first.lines != second.lines || first.files != second.files {
		t.Errorf("two sets of metrics (%v, %v)", err1, err2)
	}
}
