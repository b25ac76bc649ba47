package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

const sampleLabels = "--label theazo.agent_id=agt_sample --label theazo.session_id=ses_sample --label theazo.user_id=user_sample"

func (d *devrun) bin(name string) string { return filepath.Join(d.root, "bin", name) }

// variables are the settings of both daemons, as environment.
func (d *devrun) variables() []string {
	var list []string
	for k, v := range d.env.values {
		if strings.HasPrefix(k, "AGGREGATOR_") || strings.HasPrefix(k, "AGENTD_") || k == "DOCKER_HOST" {
			list = append(list, k+"="+v)
		}
	}
	return append(list, "AGGREGATOR_LOG_FORMAT=text", "AGENTD_LOG_FORMAT=text")
}

func (d *devrun) startAggregator(ctx context.Context) error {
	c, err := d.start("aggregator", d.variables(), d.bin("aggregator"), "serve")
	if err != nil {
		return err
	}
	return c.Await(ctx, time.Minute, func() error { return d.get(ctx, "/readyz", nil) })
}

// get asks the API with our key; into may be nil.
func (d *devrun) get(ctx context.Context, path string, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, d.env.get("THEAZO_URL")+path, nil)
	if err != nil {
		return err
	}
	if key := d.env.get("THEAZO_API_KEY"); key != "" {
		req.Header.Set("Authorization", "Bearer "+key)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answered %s", path, resp.Status)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(b, into)
}

// command runs one of our programs and returns what it printed.
func (d *devrun) command(ctx context.Context, argv ...string) (string, error) {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...) //nolint:gosec // our own programs
	cmd.Env = append(os.Environ(), d.variables()...)
	var errOut strings.Builder
	cmd.Stderr = &errOut
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", strings.Join(argv[:min(3, len(argv))], " "), err, strings.TrimSpace(errOut.String()))
	}
	return strings.TrimSpace(string(out)), nil
}

// ensureKey makes an organisation and a key, unless the ones of the last
// start still work.
func (d *devrun) ensureKey(ctx context.Context) error {
	if d.env.get("THEAZO_API_KEY") != "" && d.get(ctx, "/v1/me", nil) == nil {
		return nil
	}
	org, err := d.command(ctx, d.bin("aggregator"), "org", "create", "-name", "Sample company")
	if err != nil {
		return err
	}
	key, err := d.command(ctx, d.bin("aggregator"), "key", "create", "-org", org, "-name", "make run", "-expires", "0")
	if err != nil {
		return err
	}
	if err := d.env.set("THEAZO_ORG_ID", org); err != nil {
		return err
	}
	return d.env.set("THEAZO_API_KEY", key)
}

// ensureDocker finds an engine or starts one. Where none can run, that is
// said and the sample agent runs under `agentd exec`.
func (d *devrun) ensureDocker(ctx context.Context) error {
	state := filepath.Join(d.dir, "docker")
	line, err := d.command(ctx, filepath.Join(d.root, "tools", "docker-up"), state)
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 4 {
		d.sayf("none\n    no Docker engine can run here (%v);\n    the sample agent runs under `agentd exec` instead%17s", err, "")
		return d.env.set("DOCKER_HOST", "")
	}
	if err != nil {
		return err
	}
	d.stops = append(d.stops, stopStep{"Docker engine", func() error {
		_, err := d.command(context.WithoutCancel(ctx), filepath.Join(d.root, "tools", "docker-down"), state)
		return err
	}})
	return d.env.set("DOCKER_HOST", strings.TrimPrefix(line, "DOCKER_HOST="))
}

// startAgent enrols and starts agentd, and the sample agent.
func (d *devrun) startAgent(ctx context.Context) error {
	token, err := d.command(ctx, d.bin("aggregator"), "node", "token", "-org", d.env.get("THEAZO_ORG_ID"))
	if err != nil {
		return err
	}
	vars := append(d.variables(), "AGENTD_AGGREGATOR_ADDRESSES="+d.env.get("AGGREGATOR_LISTEN_INGEST"),
		"AGENTD_AGGREGATOR_ENROLMENT="+d.env.get("AGGREGATOR_LISTEN_ENROLMENT"), "AGENTD_AGGREGATOR_JOIN_TOKEN="+token)
	if d.env.get("DOCKER_HOST") == "" {
		_, err := d.start("agentd", append(vars, "THEAZO_AGENT_ID=agt_sample", "THEAZO_SESSION_ID=ses_sample", "THEAZO_USER_ID=user_sample"),
			d.bin("agentd"), "exec", "--", d.bin("sampleagent"))
		return err
	}
	if _, err := d.start("agentd", vars, d.bin("agentd"), "run"); err != nil {
		return err
	}
	return d.startSample(ctx)
}

// startSample puts the sample agent, a static program, into an image of its
// own: nothing is pulled.
func (d *devrun) startSample(ctx context.Context) error {
	if _, err := d.command(ctx, "sh", "-c", "tar -C bin -c sampleagent | docker import --change 'ENTRYPOINT [\"/sampleagent\"]' - theazo/sampleagent"); err != nil {
		return err
	}
	// One that a killed devrun left behind; usually there is none.
	_, _ = d.command(ctx, "docker", "rm", "-f", "theazo-sample")
	if _, err := d.command(ctx, "sh", "-c", "docker run -d --name theazo-sample --network none --log-opt max-size=50m --log-opt max-file=5 "+sampleLabels+" theazo/sampleagent"); err != nil {
		return err
	}
	d.stops = append(d.stops, stopStep{"sample agent", func() error {
		_, err := d.command(context.WithoutCancel(ctx), "docker", "rm", "-f", "theazo-sample")
		return err
	}})
	return nil
}

// awaitLines waits until a line that was written after our start is there.
func (d *devrun) awaitLines(ctx context.Context) error {
	agent := d.children[len(d.children)-1]
	return agent.Await(ctx, time.Minute, func() error {
		var page struct {
			Total int `json:"total"`
		}
		if err := d.get(ctx, "/v1/logs?limit=1&agentId=agt_sample&since="+d.began.UTC().Format("2006-01-02T15:04:05.000Z"), &page); err != nil {
			return err
		}
		if page.Total == 0 {
			return errors.New("no line of agt_sample is there yet")
		}
		return nil
	})
}
