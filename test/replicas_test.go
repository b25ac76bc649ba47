package test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/theazo/observability/aggregator/localpg"
	"github.com/theazo/observability/test/dockertest"
	"github.com/theazo/observability/test/stack"
)

// Two aggregators on one PostgreSQL, a platform node with twenty
// organisations and a BYOI node, everything but PostgreSQL killed at random:
// per organisation every line exactly once, streams complete.
func TestFaultTwoReplicasTwoNodes(t *testing.T) {
	const organisations, lines = 20, 1500
	e := dockertest.NewEngine(t)
	s := replicas(t)
	first := s.aggregators[0]
	var tenants []stack.Tenant
	for i := range organisations + 1 {
		tenants = append(tenants, must(first.NewTenant(t.Context(), fmt.Sprintf("tenant %d", i)))(t))
	}
	own := tenants[organisations]
	platform := agent(t, s.dir, "platform", "", []string{"DOCKER_HOST=" + e.Host(), "AGENTD_DOCKER_EXCLUDE=label=byoi"}, s.aggregators...)
	byoi := agent(t, s.dir, "byoi", own.Org, []string{"DOCKER_HOST=" + e.Host(), "AGENTD_DOCKER_INCLUDE=label=byoi"}, s.aggregators...)

	followers := []*follower{follow(t, s.aggregators[0].Client(tenants[0]), "/v1/logs/stream"), follow(t, s.aggregators[1].Client(own), "/v1/logs/stream")}
	for i, tenant := range tenants {
		labels := []string{"--label", "theazo.agent_id=agt_one", "--label", "theazo.org_id=" + tenant.Org}
		if i == organisations { // its labels may say what they like
			labels = []string{"--label", "theazo.agent_id=agt_one", "--label", "byoi=yes", "--label", "theazo.org_id=" + tenants[0].Org}
		}
		container(t, e, "linegen", labels, "-n", strconv.Itoa(lines), "-rate", "150")
	}
	for range 8 {
		select {
		case <-time.After(time.Duration(500+rand.IntN(1000)) * time.Millisecond): //nolint:gosec // any pause will do
		case <-t.Context().Done():
		}
		switch i := rand.IntN(4); i { //nolint:gosec // any order will do
		case 0, 1:
			s.aggregators[i].Kill()
			if err := s.aggregators[i].Start(t.Context()); err != nil {
				t.Fatal(err)
			}
		case 2:
			platform.Kill()
			if err := platform.Start(); err != nil {
				t.Fatal(err)
			}
		case 3:
			byoi.Kill()
			if err := byoi.Start(); err != nil {
				t.Fatal(err)
			}
		}
	}
	for i, tenant := range tenants {
		client := s.aggregators[i%2].Client(tenant)
		awaitTotal(t, client, lines)
		checkNumbered(t, fmt.Sprintf("tenant %d", i), must(client.AllLogs(t.Context()))(t), lines)
	}
	for i, f := range followers {
		checkNumbered(t, fmt.Sprintf("stream %d", i), f.await(t, lines), lines)
	}
}

// replicaSet is two aggregators on one PostgreSQL, with one authority.
type replicaSet struct {
	dir         string
	aggregators []*stack.Aggregator
}

func replicas(t *testing.T, env ...string) *replicaSet {
	t.Helper()
	dir := directory(t)
	pg := must(localpg.Start(t.Context(), localpg.Options{Dir: filepath.Join(dir, "postgres"), Log: hclog.NewNullLogger()}))(t)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := pg.Stop(ctx); err != nil {
			t.Error(err)
		}
	})
	s := &replicaSet{dir: dir}
	for i := range 2 {
		a := must(stack.NewAggregator(bin, filepath.Join(dir, fmt.Sprintf("aggregator%d", i))))(t)
		a.DSN, a.AuthorityDir, a.Env = pg.DSN(), filepath.Join(dir, "authority"), env
		if err := a.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := a.Stop(time.Minute); err != nil {
				t.Error(err)
			}
		})
		s.aggregators = append(s.aggregators, a)
	}
	return s
}

// An organisation above its quota is throttled; its neighbours on the same
// node are not delayed by it.
func TestFaultAThrottledOrganisationDelaysNoOther(t *testing.T) {
	const noisyLines, quietLines = 120_000, 200
	e := dockertest.NewEngine(t)
	dir := directory(t)
	a := aggregator(t, dir, "AGGREGATOR_QUOTA_RECORDS_PER_SECOND=4000")
	noisy, quiet := must(a.NewTenant(t.Context(), "noisy"))(t), must(a.NewTenant(t.Context(), "quiet"))(t)
	agent(t, dir, "node", "", []string{"DOCKER_HOST=" + e.Host()}, a)
	container(t, e, "linegen", []string{"--label", "theazo.org_id=" + noisy.Org}, "-n", strconv.Itoa(noisyLines))
	awaitSome(t, a.Client(noisy))

	container(t, e, "linegen", []string{"--label", "theazo.org_id=" + quiet.Org}, "-n", strconv.Itoa(quietLines), "-rate", "50")
	awaitTotal(t, a.Client(quiet), quietLines)
	page := must(a.Client(noisy).Logs(t.Context(), "limit", "1"))(t)
	if page.Total >= noisyLines {
		t.Errorf("the quiet organisation's lines came after all %d of the noisy one: it waited for them", page.Total)
	}
	awaitTotal(t, a.Client(noisy), noisyLines)
	checkNumbered(t, "the noisy organisation", must(a.Client(noisy).AllLogs(t.Context()))(t), noisyLines)
}

func awaitSome(t *testing.T, c *stack.Client, params ...string) {
	t.Helper()
	limit := time.After(stack.Patience)
	for {
		if page, err := c.Logs(t.Context(), append([]string{"limit", "1"}, params...)...); err == nil && page.Total > 0 {
			return
		}
		select {
		case <-limit:
			t.Fatal("no line came")
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// A rolling restart of both replicas, twice, while lines flow: a graceful stop
// loses nothing.
func TestFaultAggregatorsAreStoppedWhileLinesFlow(t *testing.T) {
	const lines = 20_000
	e := dockertest.NewEngine(t)
	s := replicas(t)
	tenant := must(s.aggregators[0].NewTenant(t.Context(), "rolling"))(t)
	agent(t, s.dir, "node", tenant.Org, []string{"DOCKER_HOST=" + e.Host()}, s.aggregators...)
	container(t, e, "linegen", nil, "-n", strconv.Itoa(lines), "-rate", "4000")
	for i := range 4 {
		a := s.aggregators[i%2]
		if err := a.Stop(time.Minute); err != nil {
			t.Fatal(err)
		}
		if err := a.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	awaitTotal(t, s.aggregators[0].Client(tenant), lines)
	checkNumbered(t, "rolling restart", must(s.aggregators[1].Client(tenant).AllLogs(t.Context()))(t), lines)
}
