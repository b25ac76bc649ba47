package aggregator

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/theazo/observability/aggregator/store"
	"github.com/theazo/observability/shared/config"
	"github.com/theazo/observability/shared/logging"
)

// Config of the aggregator. Every setting can be given in the file, the
// environment (AGGREGATOR_…) and as a flag.
type Config struct {
	DataDir string `yaml:"data_dir" help:"directory of the private database and of the certificate authority"`

	Database struct {
		DSN         string        `yaml:"dsn" help:"PostgreSQL 14 or newer to use (postgres://…); without it a private one is kept in data_dir"`
		ServiceUser string        `yaml:"service_user" help:"user that runs the private PostgreSQL where the aggregator is started as root"`
		BinDir      string        `yaml:"bin_dir" help:"directory of PostgreSQL's programs (default: found)"`
		Retention   time.Duration `yaml:"retention" help:"how long logs are kept, those of organisations with a retention class apart"`
		Classes     []string      `yaml:"retention_classes" help:"retention classes and how long their lines are kept, such as 1=2160h; 'aggregator org retention' puts an organisation into one"`
	} `yaml:"database"`

	Listen struct {
		API       string `yaml:"api" help:"address of the API and the dashboard"`
		Admin     string `yaml:"admin" help:"address of /metrics, /healthz, /readyz and profiles (/debug/pprof/); keep it private"`
		Enrolment string `yaml:"enrolment" help:"address where nodes enrol (TLS, join token)"`
		Ingest    string `yaml:"ingest" help:"address where nodes send records (TLS, node certificate)"`
	} `yaml:"listen"`

	Quota struct {
		BytesPerSecond   config.Size `yaml:"bytes_per_second" help:"most that one organisation may send, all its nodes together; above it only that organisation waits"`
		RecordsPerSecond int64       `yaml:"records_per_second" help:"the same in records"`
	} `yaml:"quota"`

	Compaction struct {
		Workers int           `yaml:"workers" help:"units of lines compacted at a time, each up to one core; -1: none here, another aggregator does it"`
		MaxAge  time.Duration `yaml:"max_age" help:"after which lines are compacted, however few they are"`
	} `yaml:"compaction"`

	Query struct {
		Memory      config.Size   `yaml:"memory" help:"most that all queries together hold decoded"`
		CountBudget time.Duration `yaml:"count_budget" help:"processor time for one total of a text search; after it the total is partial and can be continued"`
		Streams     int           `yaml:"streams_per_organisation" help:"live streams that one organisation may have open here; more are told to come back later"`
	} `yaml:"query"`

	Push struct {
		Content bool `yaml:"content" help:"keep the content of model messages (prompts, answers) that OpenTelemetry SDKs push to the API"`
	} `yaml:"push"`

	TLSProxy       bool     `yaml:"tls_proxy" help:"a proxy in front ends TLS and sets X-Forwarded-Proto: cookies are then marked Secure"`
	AuthorityDir   string   `yaml:"authority_dir" help:"directory of the certificate authority and of the erasure key, the same on all replicas (default: data_dir/authority)"`
	AllowedOrigins []string `yaml:"allowed_origins" help:"web origins whose pages may call the API (CORS), such as https://app.example.com"`

	Log logging.Config `yaml:"log"`
}

// Default is the configuration of the one-command start.
func Default() Config {
	var c Config
	c.DataDir = "/var/lib/aggregator"
	c.Database.ServiceUser = "postgres"
	c.Database.Retention = 30 * 24 * time.Hour
	c.Listen.API = "127.0.0.1:8080"
	c.Listen.Admin = "127.0.0.1:9090"
	c.Listen.Enrolment = ":7443"
	c.Listen.Ingest = ":7444"
	c.Quota.BytesPerSecond = 128 << 20
	c.Quota.RecordsPerSecond = 2_000_000
	c.Compaction.Workers = store.DefaultCompactionWorkers
	c.Compaction.MaxAge = store.DefaultCompactionAge
	c.Query.Memory = store.DefaultQueryMemory
	c.Query.CountBudget = store.DefaultCountBudget
	c.Query.Streams = 1000
	c.Log = logging.Default
	return c
}

// Validate says what is wrong with the configuration, all of it at once.
func (c *Config) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if !filepath.IsAbs(c.DataDir) {
		bad("data_dir: %q is not an absolute path", c.DataDir)
	}
	if c.AuthorityDir != "" && !filepath.IsAbs(c.AuthorityDir) {
		bad("authority_dir: %q is not an absolute path", c.AuthorityDir)
	}
	for name, address := range map[string]string{"api": c.Listen.API, "admin": c.Listen.Admin, "enrolment": c.Listen.Enrolment, "ingest": c.Listen.Ingest} {
		if _, _, err := net.SplitHostPort(address); err != nil {
			bad("listen.%s: %q is not host:port", name, address)
		}
	}
	if c.Database.Retention < time.Hour {
		bad("database.retention: %s is less than an hour", c.Database.Retention)
	}
	if _, err := c.retentionClasses(); err != nil {
		errs = append(errs, err)
	}
	if c.Compaction.Workers == 0 || c.Compaction.Workers < -1 || c.Compaction.MaxAge < time.Second {
		bad("compaction: %d workers (1 or more, or -1) and a max_age of %s (1s or more)", c.Compaction.Workers, c.Compaction.MaxAge)
	}
	if c.Query.Memory < 16<<20 || c.Query.CountBudget < 10*time.Millisecond {
		bad("query: a memory of %s and a count_budget of %s are too little to work with", c.Query.Memory, c.Query.CountBudget)
	}
	if c.Query.Streams < 1 {
		bad("query.streams_per_organisation: %d, and at least 1 is needed", c.Query.Streams)
	}
	if c.Quota.BytesPerSecond < 1<<10 || c.Quota.RecordsPerSecond < 1 {
		bad("quota: %s and %d records a second are too little to work with", c.Quota.BytesPerSecond, c.Quota.RecordsPerSecond)
	}
	for _, o := range c.AllowedOrigins {
		u, err := url.Parse(o)
		if err != nil || u.Host == "" || u.Path != "" || (u.Scheme != "https" && u.Scheme != "http") {
			bad("allowed_origins: %q is not an origin such as https://app.example.com", o)
		}
	}
	if err := c.Log.Validate(); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// retentionClasses reads database.retention_classes.
func (c *Config) retentionClasses() (map[int]time.Duration, error) {
	classes := map[int]time.Duration{}
	for _, text := range c.Database.Classes {
		number, keep, _ := strings.Cut(text, "=")
		class, errClass := strconv.Atoi(strings.TrimSpace(number))
		d, errKeep := time.ParseDuration(strings.TrimSpace(keep))
		if errClass != nil || errKeep != nil || class < 1 || class > store.MaxRetentionClass || d < store.MinRetention {
			return nil, fmt.Errorf("database.retention_classes: %q is not a class from 1 to %d and a time of %s or more, such as 1=2160h", text, store.MaxRetentionClass, store.MinRetention)
		}
		if _, twice := classes[class]; twice {
			return nil, fmt.Errorf("database.retention_classes: class %d is given twice", class)
		}
		classes[class] = d
	}
	return classes, nil
}

// storeOptions are those of the configuration. It was validated.
func (c *Config) storeOptions() store.Options {
	classes, err := c.retentionClasses()
	if err != nil {
		classes = nil // cannot be: see Validate
	}
	return store.Options{
		Retention: c.Database.Retention, RetentionClasses: classes,
		Compaction:  store.Compaction{Workers: c.Compaction.Workers, MaxAge: c.Compaction.MaxAge},
		QueryMemory: int64(c.Query.Memory), CountBudget: c.Query.CountBudget,
	}
}

// erasureKeyFile is where the secret of erased subjects lies: beside the
// authority, which is the same on all replicas and in every backup.
func (c *Config) erasureKeyFile() string { return filepath.Join(c.authorityDir(), "erasure.key") }

func (c *Config) authorityDir() string {
	if c.AuthorityDir != "" {
		return c.AuthorityDir
	}
	return filepath.Join(c.DataDir, "authority")
}
