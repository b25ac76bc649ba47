package aggregator

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"time"

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
		Retention   time.Duration `yaml:"retention" help:"how long logs are kept"`
	} `yaml:"database"`

	Listen struct {
		API       string `yaml:"api" help:"address of the API and the dashboard"`
		Admin     string `yaml:"admin" help:"address of /metrics, /healthz and /readyz; keep it private"`
		Enrolment string `yaml:"enrolment" help:"address where nodes enrol (TLS, join token)"`
		Ingest    string `yaml:"ingest" help:"address where nodes send records (TLS, node certificate)"`
	} `yaml:"listen"`

	Quota struct {
		BytesPerSecond   config.Size `yaml:"bytes_per_second" help:"most that one organisation may send, all its nodes together; above it only that organisation waits"`
		RecordsPerSecond int64       `yaml:"records_per_second" help:"the same in records"`
	} `yaml:"quota"`

	TLSProxy       bool     `yaml:"tls_proxy" help:"a proxy in front ends TLS and sets X-Forwarded-Proto: cookies are then marked Secure"`
	AuthorityDir   string   `yaml:"authority_dir" help:"directory of the certificate authority, the same on all replicas (default: data_dir/authority)"`
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

func (c *Config) authorityDir() string {
	if c.AuthorityDir != "" {
		return c.AuthorityDir
	}
	return filepath.Join(c.DataDir, "authority")
}
