package agentd

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/theazo/observability/agentd/docker"
	"github.com/theazo/observability/agentd/intake"
	"github.com/theazo/observability/agentd/sandbox"
	"github.com/theazo/observability/agentd/source"
	"github.com/theazo/observability/agentd/spool"
	"github.com/theazo/observability/shared/telemetry"
	"github.com/theazo/observability/shared/wire"
)

// sources runs what reads.
type sources struct {
	intake     *intake.Intake
	durable    func() map[string][]byte
	log        hclog.Logger
	registerer prometheus.Registerer
	start      func(context.Context, source.Source) // runs one until ctx ends

	mu      sync.Mutex
	running []string
}

// sourceSettings is the part of the configuration that sources are made of,
// as comparable text.
func sourceSettings(c *Config) string {
	return fmt.Sprintf("%+v %q %+v %+v", c.Docker, c.Files, c.Defaults, c.Sandbox)
}

// configuredSources makes the sources that the configuration asks for.
func configuredSources(c *Config, durable func() map[string][]byte, keeper docker.Keeper, log hclog.Logger, reg prometheus.Registerer) ([]source.Source, error) {
	env, err := telemetry.ParseEnvironment(c.Defaults.Environment)
	if err != nil {
		return nil, err
	}
	if !c.Docker.Enabled && len(c.Files) == 0 && !c.Sandbox.Enabled {
		return nil, errors.New("nothing to collect: docker.enabled and sandbox.enabled are false and files is empty")
	}
	common := docker.Config{DefaultOrg: telemetry.OrgID(c.Defaults.Organisation), DefaultEnv: env, Keeper: keeper}
	var list []source.Source
	var resolver sandbox.Resolver
	add := func(cfg docker.Config) *docker.Source {
		d, e := docker.New(cfg, log, reg)
		list, err = append(list, d), errors.Join(err, e)
		return d
	}
	if c.Docker.Enabled {
		engine := c.dockerConfig()
		engine.DefaultOrg, engine.DefaultEnv, engine.Keeper = common.DefaultOrg, common.DefaultEnv, common.Keeper
		if d := add(engine); d != nil {
			resolver = d
		}
	}
	if len(c.Files) > 0 {
		files := common
		files.Files = c.Files
		add(files)
	}
	if err != nil {
		return nil, err
	}
	local, err := c.endpoint(durable, resolver, log, reg)
	if err != nil {
		return nil, err
	}
	if local != nil {
		list = append(list, local)
	}
	return list, nil
}

// dockerConfig is what the settings below docker say.
func (c *Config) dockerConfig() docker.Config {
	return docker.Config{
		Endpoint: c.Docker.Endpoint, Include: c.Docker.Include, Exclude: c.Docker.Exclude, From: docker.From(c.Docker.From),
		StatsInterval: c.Docker.StatsInterval, MaxHeldFiles: c.Docker.HeldFiles, MaxHeldBytes: int64(c.Docker.HeldBytes),
	}
}

// runAll runs sources side by side until ctx ends.
func (s *sources) runAll(ctx context.Context, list []source.Source) {
	s.setRunning(list...)
	var wg sync.WaitGroup
	for _, src := range list {
		wg.Go(func() { s.start(ctx, src) })
	}
	wg.Wait()
}

// supervise runs one source, started again whenever it fails, until ctx ends.
func (s *sources) supervise(ctx context.Context, src source.Source) {
	source.Supervise(ctx, src, func() source.Positions { return s.intake.Resume(src.Name(), s.durable()) },
		s.intake.Sink(src.Name()), s.log.Named(src.Name()))
}

// run runs one source once, to its end.
func (s *sources) run(ctx context.Context, src source.Source) error {
	s.setRunning(src)
	return src.Run(ctx, s.intake.Resume(src.Name(), s.durable()), s.intake.Sink(src.Name()))
}

func (s *sources) setRunning(list ...source.Source) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running = s.running[:0]
	for _, src := range list {
		s.running = append(s.running, src.Name())
	}
}

func (s *sources) names() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.running...)
}

// tombstoneBody is the record that stands where the spool found damage: the
// spool knows no records, so it asks for the bytes.
func tombstoneBody(m spool.Missing) []byte {
	g := telemetry.Gap{
		Reason: telemetry.GapCorrupt, Count: int64(m.Count), FirstSeq: m.First, LastSeq: m.First + uint64(m.Count) - 1,
		Bytes: m.Bytes, Since: m.Since, Until: m.Until,
		Detail: "Part of this node's buffer was damaged on disk.",
	}
	switch m.Reason {
	case spool.ReasonEvicted:
		g.Reason = telemetry.GapEvicted
		g.Detail = "The buffer of this node was full, and these records gave way to others (bytes as compressed)."
	case spool.ReasonForgotten:
		g.Reason = telemetry.GapForgotten
		g.Detail = "The aggregator asked again for records that it had acknowledged, as after a restore of its database; this node does not have them any more."
	}
	b, err := wire.EncodeRecords(&telemetry.Records{Gaps: []telemetry.Gap{g}})
	if err != nil {
		return nil // the aggregator quarantines an empty body and still counts the range
	}
	return b
}
