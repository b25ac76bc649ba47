package agentd

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/theazo/observability/agentd/guest"
	"github.com/theazo/observability/shared/config"
	"github.com/theazo/observability/shared/logging"
	"github.com/theazo/observability/shared/telemetry"
)

// Config of agentd. Every setting can be given in the file, the environment
// (AGENTD_…) and as a flag.
type Config struct {
	StateDir string `yaml:"state_dir" help:"directory of the node's key and certificate and of the buffer; kept over restarts"`
	NodeName string `yaml:"node_name" help:"name that people know this host by (default: the host name)"`

	Aggregator struct {
		Offline   bool     `yaml:"offline" help:"do not connect: records stay in the buffer until this is false again, which needs no restart"`
		Addresses []string `yaml:"addresses" help:"host:port of the aggregator's ingest server; several are tried in turn"`
		Enrolment string   `yaml:"enrolment" help:"host:port of the aggregator's enrolment server, needed until the node is enrolled"`
		JoinToken string   `yaml:"join_token" help:"token from 'aggregator node token', needed until the node is enrolled; ${NAME} reads the environment"`
		TokenFile string   `yaml:"join_token_file" help:"file that holds the join token instead (systemd's LoadCredential)"`
	} `yaml:"aggregator"`

	Defaults struct {
		Organisation string `yaml:"organisation" help:"platform nodes: organisation of sandboxes without the label theazo.org_id; without it their lines are not collected"`
		Environment  string `yaml:"environment" help:"live or test, for sandboxes without the label theazo.environment"`
	} `yaml:"defaults"`

	Docker struct {
		Enabled  bool     `yaml:"enabled" help:"collect logs and events of Docker containers"`
		Endpoint string   `yaml:"endpoint" help:"engine to talk to, as in DOCKER_HOST (default: DOCKER_HOST, else unix:///var/run/docker.sock)"`
		Include  []string `yaml:"include" help:"collect only containers that match one of these: name=GLOB, image=GLOB, label=KEY or label=KEY=GLOB"`
		Exclude  []string `yaml:"exclude" help:"leave out containers that match one of these, same form"`
		From     string   `yaml:"from" help:"containers that ran before the first start of agentd: read from their beginning, or from now"`

		StatsInterval time.Duration `yaml:"stats_interval" help:"time between two samples of each container's CPU, memory, network and disk; 0: none"`
		HeldFiles     int           `yaml:"held_files" help:"most log files of one container that are held after the engine deleted them, until they are read"`
		HeldBytes     config.Size   `yaml:"held_bytes" help:"most disk space of such files of one container"`
	} `yaml:"docker"`

	Files []string `yaml:"files" help:"Docker json-file logs to read without an engine: file name patterns"`

	Sandbox struct {
		Enabled bool        `yaml:"enabled" help:"the node's local endpoint: sandboxes report logs, model calls and spans there (THEAZO_ENDPOINT, OpenTelemetry), and agentd-exec its output"`
		Listen  []string    `yaml:"listen" help:"where it listens: ADDRESS:PORT or INTERFACE:PORT; the unix socket sandbox/agentd.sock in the state directory is always there"`
		Records int         `yaml:"records_per_second" help:"most records of one sandbox, on average over 10 seconds"`
		Bytes   config.Size `yaml:"bytes_per_second" help:"most bytes of one sandbox, on average over 10 seconds"`
		Names   []string    `yaml:"content_names" help:"further attributes that are message content; a name that ends with * stands for all that begin so"`
		Content bool        `yaml:"message_content" help:"keep what people and models said in OpenTelemetry's model messages; otherwise it is dropped here"`
	} `yaml:"sandbox"`

	Buffer struct {
		Budget  config.Size `yaml:"budget" help:"most disk space that unsent records may take"`
		Segment config.Size `yaml:"segment" help:"size of one file of the buffer"`
		Floor   config.Size `yaml:"floor" help:"disk space that the buffer leaves free on its file system (default: 5 %, at least 512MiB, at most a quarter of it)"`

		EvictAfter time.Duration `yaml:"evict_after" help:"a full buffer stops reading for so long before it gives up the least important records; what can be read again is safer in its file"`
	} `yaml:"buffer"`

	Intake struct {
		Multiline bool `yaml:"multiline" help:"keep the lines of a stack trace together as one message"`

		MaxDelay  time.Duration `yaml:"max_delay" help:"longest time that lines wait to be written and sent together while more arrive"`
		Structure bool          `yaml:"structure" help:"read level, message and fields out of JSON, logfmt and other known formats"`
		ANSI      string        `yaml:"ansi" help:"terminal escape sequences in messages: strip or keep"`
		Raw       string        `yaml:"raw" help:"keep a line's exact bytes in its metadata: never (but where the message cannot hold them), changed (also where escape sequences were taken out) or always"`
	} `yaml:"intake"`

	Redact struct {
		Enabled  bool     `yaml:"enabled" help:"take secrets (keys, tokens, passwords, card numbers) out before anything is written to disk"`
		Off      []string `yaml:"without" help:"built-in rules that are not wanted, by id; 'agentd redact -rules' lists them"`
		Personal []string `yaml:"personal" help:"personal data to take out as well: email, ipv4, phone, iban"`
		Rules    []string `yaml:"rules" help:"your own, each NAME=PATTERN in RE2; where the pattern has a group, only that is taken out"`
	} `yaml:"redact"`

	Canary struct {
		Interval time.Duration `yaml:"interval" help:"time between two lines of agentd's own, whose way to the aggregator is timed; 0: none. Platform nodes need defaults.organisation for it"`
	} `yaml:"canary"`

	Guest struct {
		Memory config.Size `yaml:"memory" help:"memory that agentd may take; it gives memory back to stay below, and slows down"`
		CPUs   int         `yaml:"cpus" help:"processors that it may use at a time; more read a backlog sooner, at a higher price for every line"`
		Nice   int         `yaml:"nice" help:"how far it steps back behind the host's own work, 0 to 19; the systemd unit sets its own"`
	} `yaml:"guest"`

	Log logging.Config `yaml:"log"`
}

// Default is the configuration that nobody needs to change.
func Default() Config {
	var c Config
	c.StateDir = "/var/lib/agentd"
	c.Defaults.Environment = telemetry.Live.String()
	c.Docker.Enabled = true
	c.Docker.From = "beginning"
	c.Sandbox.Enabled = true
	c.Sandbox.Listen = []string{"127.0.0.1:7070", "docker0:7070"}
	c.Sandbox.Records = 1000
	c.Sandbox.Bytes = 1 << 20
	c.Buffer.Budget = 1 << 30
	c.Buffer.Segment = 8 << 20
	c.Buffer.EvictAfter = time.Minute
	c.Canary.Interval = time.Minute
	c.Guest.Memory, c.Guest.CPUs = guest.DefaultMemory, 1
	c.Docker.StatsInterval = 15 * time.Second
	c.Docker.HeldFiles, c.Docker.HeldBytes = 64, 256<<20
	c.Intake.MaxDelay = 25 * time.Millisecond
	c.Intake.Multiline, c.Intake.Structure, c.Intake.ANSI, c.Intake.Raw = true, true, "strip", "never"
	c.Redact.Enabled = true
	c.Log = logging.Default
	return c
}

// Validate says what is wrong with the configuration, all of it at once.
func (c *Config) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if !filepath.IsAbs(c.StateDir) {
		bad("state_dir: %q is not an absolute path", c.StateDir)
	}
	if len(c.Aggregator.Addresses) == 0 {
		bad("aggregator.addresses: no address is given; the aggregator prints its own at start")
	}
	address := func(name, a string) {
		if _, _, err := net.SplitHostPort(a); err != nil {
			bad("%s: %q is not host:port", name, a)
		}
	}
	if c.Aggregator.Enrolment != "" {
		address("aggregator.enrolment", c.Aggregator.Enrolment)
	}
	for _, a := range c.Aggregator.Addresses {
		address("aggregator.addresses", a)
	}
	if c.Aggregator.JoinToken != "" && c.Aggregator.TokenFile != "" {
		bad("aggregator: give join_token or join_token_file, not both")
	}
	if c.Defaults.Organisation != "" {
		if err := telemetry.CheckID(c.Defaults.Organisation); err != nil {
			bad("defaults.organisation: %q %w", c.Defaults.Organisation, err)
		}
	}
	if _, err := telemetry.ParseEnvironment(c.Defaults.Environment); err != nil {
		bad("defaults.environment: %w", err)
	}
	for _, p := range c.Files {
		if _, err := filepath.Match(p, ""); err != nil {
			bad("files: pattern %q: %w", p, err)
		} else if !filepath.IsAbs(p) || strings.ContainsAny(filepath.Dir(p), `*?[`) {
			bad("files: %q: give an absolute path; only its last part may hold a pattern", p)
		}
	}
	engine := c.dockerConfig()
	if err := engine.Validate(); err != nil {
		bad("docker: %w", err)
	}
	if c.Sandbox.Enabled {
		endpoint := c.sandboxConfig()
		if err := endpoint.Validate(); err != nil {
			bad("sandbox: %w", err)
		}
		if c.Sandbox.Records < 1 || c.Sandbox.Bytes < 1<<10 {
			bad("sandbox: records_per_second is at least 1 and bytes_per_second at least 1KiB")
		}
	}
	if c.Buffer.Segment < 1<<20 || c.Buffer.Segment > 256<<20 {
		bad("buffer.segment: %s is outside 1MiB to 256MiB", c.Buffer.Segment)
	}
	if c.Buffer.Budget < 4*c.Buffer.Segment {
		bad("buffer.budget: %s is less than four segments of %s", c.Buffer.Budget, c.Buffer.Segment)
	}
	if c.Intake.MaxDelay < 0 || c.Intake.MaxDelay > 10*time.Second {
		bad("intake.max_delay: %s is outside 0s to 10s", c.Intake.MaxDelay)
	}
	if c.Docker.StatsInterval < 0 || c.Docker.StatsInterval > 0 && c.Docker.StatsInterval < time.Second {
		bad("docker.stats_interval: %s is neither 0s nor at least 1s", c.Docker.StatsInterval)
	}
	if c.Buffer.EvictAfter < 0 {
		bad("buffer.evict_after: %s is below 0s", c.Buffer.EvictAfter)
	}
	if c.Canary.Interval < 0 || c.Canary.Interval > 0 && c.Canary.Interval < time.Second {
		bad("canary.interval: %s is neither 0s nor at least 1s", c.Canary.Interval)
	}
	if c.Guest.Memory < 32<<20 {
		bad("guest.memory: %s is below 32MiB, which agentd needs", c.Guest.Memory)
	}
	if c.Guest.CPUs < 1 || c.Guest.Nice < 0 || c.Guest.Nice > 19 {
		bad("guest: cpus is at least 1, nice is 0 to 19")
	}
	if _, err := c.intakeConfig(); err != nil {
		bad("intake: %w", err)
	}
	if _, err := c.redactor(nil); err != nil {
		bad("redact: %w", err)
	}
	if err := c.Log.Validate(); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// nodeName is the configured name or the host's.
func (c *Config) nodeName() string {
	if c.NodeName != "" {
		return c.NodeName
	}
	name, err := os.Hostname()
	if err != nil {
		return "unnamed"
	}
	return name
}

// joinToken returns the token, or "" where none is given.
func (c *Config) joinToken() (string, error) {
	if c.Aggregator.TokenFile == "" {
		return c.Aggregator.JoinToken, nil
	}
	b, err := os.ReadFile(c.Aggregator.TokenFile)
	if err != nil {
		return "", fmt.Errorf("join token: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}
