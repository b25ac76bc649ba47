package stack

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/theazo/observability/test/proc"
)

// Patience of every wait: generous, because machines are slow and shared.
const Patience = 2 * time.Minute

// Aggregator is one aggregator, which can be killed and started again.
type Aggregator struct {
	*proc.Process
	Bin, Dir     string
	DSN          string // empty: its own private PostgreSQL
	AuthorityDir string // empty: its own
	URL          string
	Admin        string
	Enrolment    string
	Ingest       string
	Env          []string
}

// NewAggregator chooses addresses for an aggregator with its data in dir.
func NewAggregator(bin, dir string) (*Aggregator, error) {
	a := &Aggregator{Bin: bin, Dir: dir}
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // PostgreSQL's user passes through
		return nil, err
	}
	for _, to := range []*string{&a.URL, &a.Admin, &a.Enrolment, &a.Ingest} {
		address, err := freeAddress()
		if err != nil {
			return nil, err
		}
		*to = address
	}
	a.URL, a.Admin = "http://"+a.URL, "http://"+a.Admin
	return a, nil
}

func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // returns at once
	if err != nil {
		return "", err
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String(), nil
}

func (a *Aggregator) environment() []string {
	env := []string{
		"AGGREGATOR_DATA_DIR=" + a.Dir, "AGGREGATOR_LISTEN_API=" + strings.TrimPrefix(a.URL, "http://"),
		"AGGREGATOR_LISTEN_ADMIN=" + strings.TrimPrefix(a.Admin, "http://"), "AGGREGATOR_LISTEN_ENROLMENT=" + a.Enrolment,
		"AGGREGATOR_LISTEN_INGEST=" + a.Ingest, "AGGREGATOR_LOG_FORMAT=text",
	}
	if a.DSN != "" {
		env = append(env, "AGGREGATOR_DATABASE_DSN="+a.DSN)
	}
	if a.AuthorityDir != "" {
		env = append(env, "AGGREGATOR_AUTHORITY_DIR="+a.AuthorityDir)
	}
	return append(env, a.Env...)
}

// Start starts it and waits until it is ready.
func (a *Aggregator) Start(ctx context.Context) error {
	if err := a.StartOnly(); err != nil {
		return err
	}
	return a.AwaitReady(ctx)
}

// StartOnly starts it and does not wait.
func (a *Aggregator) StartOnly() error {
	p, err := proc.Start(proc.Options{Name: "aggregator", Dir: a.Dir, Env: a.environment(), Argv: []string{filepath.Join(a.Bin, "aggregator"), "serve"}})
	a.Process = p
	return err
}

// AwaitReady waits for /readyz.
func (a *Aggregator) AwaitReady(ctx context.Context) error {
	c := Client{URL: a.Admin}
	return a.Await(ctx, Patience, func() error { return c.Get(ctx, "/readyz", nil) })
}

// Command runs an operator's command and returns what it prints.
func (a *Aggregator) Command(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(a.Bin, "aggregator"), args...) //nolint:gosec // our own program
	cmd.Env = append(os.Environ(), a.environment()...)
	var errOut strings.Builder
	cmd.Stderr = &errOut
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("aggregator %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(errOut.String()))
	}
	return strings.TrimSpace(string(out)), nil
}

// Tenant is an organisation with a key.
type Tenant struct{ Org, Key string }

// NewTenant makes an organisation and a live key for everything.
func (a *Aggregator) NewTenant(ctx context.Context, name string) (Tenant, error) {
	org, err := a.Command(ctx, "org", "create", "-name", name)
	if err != nil {
		return Tenant{}, err
	}
	key, err := a.Command(ctx, "key", "create", "-org", org, "-name", name)
	return Tenant{Org: org, Key: key}, err
}

// Client of a tenant.
func (a *Aggregator) Client(t Tenant) *Client { return &Client{URL: a.URL, Key: t.Key} }

var postmasterLine = regexp.MustCompile(`^\d+$`)

// PostgresPID is the pid of the private PostgreSQL's postmaster.
func (a *Aggregator) PostgresPID() (int, error) {
	var found int
	err := filepath.WalkDir(filepath.Join(a.Dir, "postgres"), func(path string, d os.DirEntry, err error) error {
		if err != nil || d.Name() != "postmaster.pid" {
			return nil //nolint:nilerr // other files come and go
		}
		b, err := os.ReadFile(path) //nolint:gosec // under our own directory
		if err != nil {
			return err
		}
		first, _, _ := strings.Cut(string(b), "\n")
		if postmasterLine.MatchString(first) {
			found, err = strconv.Atoi(first)
		}
		return err
	})
	if err == nil && found == 0 {
		err = fmt.Errorf("no postmaster.pid below %s", a.Dir)
	}
	return found, err
}

// Agent is one agentd, which can be killed and started again.
type Agent struct {
	*proc.Process
	Bin, Dir   string
	Aggregator []*Aggregator
	Token      string
	Env        []string
}

// Start starts it.
func (g *Agent) Start() error {
	if err := os.MkdirAll(g.Dir, 0o700); err != nil {
		return err
	}
	var addresses []string
	for _, a := range g.Aggregator {
		addresses = append(addresses, a.Ingest)
	}
	p, err := proc.Start(proc.Options{Name: "agentd", Dir: g.Dir, Argv: []string{filepath.Join(g.Bin, "agentd"), "run"}, Env: append([]string{
		"AGENTD_STATE_DIR=" + g.Dir, "AGENTD_AGGREGATOR_ADDRESSES=" + strings.Join(addresses, ","), "AGENTD_AGGREGATOR_ENROLMENT=" + g.Aggregator[0].Enrolment,
		"AGENTD_AGGREGATOR_JOIN_TOKEN=" + g.Token, "AGENTD_LOG_FORMAT=text",
	}, g.Env...)})
	g.Process = p
	return err
}

// Status asks the running agentd.
func (g *Agent) Status(ctx context.Context) (string, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(g.Bin, "agentd"), "status", "-json", "-state_dir", g.Dir) //nolint:gosec // our own program
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("agentd status: %w: %s", err, out)
	}
	return string(out), nil
}

// Build builds the programs of this module into dir and returns it. Flags are
// those of `go build`.
func Build(ctx context.Context, dir string, flags ...string) (string, error) {
	args := append([]string{"build", "-buildvcs=false", "-o", dir + string(filepath.Separator)}, flags...)
	args = append(args, "github.com/theazo/observability/agentd/cmd/agentd", "github.com/theazo/observability/agentd/cmd/agentd-exec",
		"github.com/theazo/observability/aggregator/cmd/aggregator",
		"github.com/theazo/observability/test/cmd/sampleagent", "github.com/theazo/observability/test/cmd/linegen")
	cmd := exec.CommandContext(ctx, "go", args...) //nolint:gosec // fixed arguments
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w: %s", err, out)
	}
	return dir, nil
}
