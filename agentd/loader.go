package agentd

import (
	"context"
	"flag"
	"fmt"
	"io"
	"path/filepath"
	"reflect"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/hashicorp/go-hclog"

	"github.com/theazo/observability/agentd/uplink"
	"github.com/theazo/observability/shared/config"
)

// settleFile is how long a changed file must be quiet before it is read:
// editors write in several steps.
const settleFile = 200 * time.Millisecond

// Loader reads the configuration from one command line, as often as asked.
type Loader struct {
	name string
	args []string
	more func(*flag.FlagSet)
	file string
	// loaded is what Load returned last.
	loaded Config
}

// NewLoader parses a command's flags and returns what is left of args.
func NewLoader(name string, args []string, more func(*flag.FlagSet)) (l *Loader, rest []string, err error) {
	l = &Loader{name: name, args: args, more: more}
	_, set, rest, err := l.parse()
	if err != nil {
		return nil, nil, err
	}
	l.file = set.File
	return l, rest, nil
}

func (l *Loader) parse() (*Config, *config.Set, []string, error) {
	cfg := Default()
	set := config.New("agentd", &cfg)
	fs := flag.NewFlagSet(l.name, flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	set.Flags(fs)
	if l.more != nil {
		l.more(fs)
	}
	err := fs.Parse(l.args)
	return &cfg, set, fs.Args(), err
}

// Load reads file, environment and flags, and validates the result.
func (l *Loader) Load() (Config, error) {
	cfg, set, _, err := l.parse()
	if err != nil {
		return Config{}, err
	}
	if err := set.Load(cfg); err != nil {
		return Config{}, err
	}
	if err := cfg.Validate(); err != nil {
		return Config{}, fmt.Errorf("the configuration is not usable:\n%w", err)
	}
	l.loaded = *cfg
	return *cfg, nil
}

// Read reads file, environment and flags, for a command that needs only some
// of them to be good.
func (l *Loader) Read() (Config, error) {
	cfg, set, _, err := l.parse()
	if err != nil {
		return Config{}, err
	}
	err = set.Load(cfg)
	return *cfg, err
}

// StateDir reads only where the agent keeps its state: `agentd status` must
// work where nothing else is configured.
func (l *Loader) StateDir() (string, error) {
	cfg, set, _, err := l.parse()
	if err != nil {
		return "", err
	}
	err = set.Load(cfg)
	return cfg.StateDir, err
}

// Watch yields the configuration anew each time its file has changed to
// something valid. It returns nil where there is no file. The directory is
// watched, because editors and configuration managers replace files.
func (l *Loader) Watch(ctx context.Context, log hclog.Logger) <-chan Config {
	if l.file == "" {
		return nil
	}
	w, err := fsnotify.NewWatcher()
	if err == nil {
		err = w.Add(filepath.Dir(l.file))
	}
	if err != nil {
		log.Warn("changes of the configuration file take effect at a restart only", "file", l.file, "error", err)
		return nil
	}
	out := make(chan Config)
	go func() {
		defer func() { _ = w.Close() }()
		l.watch(ctx, w, log, out)
	}()
	return out
}

func (l *Loader) watch(ctx context.Context, w *fsnotify.Watcher, log hclog.Logger, out chan<- Config) {
	settled := time.NewTimer(0)
	<-settled.C
	refused := ""
	for {
		select {
		case <-ctx.Done():
			return
		case e := <-w.Events:
			// A link may be switched elsewhere in the directory (Kubernetes):
			// any change in it makes us look. Most are not ours, and one may be
			// our own log: what says the same as before is passed over.
			if e.Op != fsnotify.Chmod {
				settled.Reset(settleFile)
			}
		case err := <-w.Errors:
			log.Warn("watching the configuration file", "error", err)
		case <-settled.C:
			before := l.loaded
			cfg, err := l.Load()
			if err != nil {
				if err.Error() != refused {
					refused = err.Error()
					log.Error("the changed configuration is not used; the old one stays", "error", err)
				}
				continue
			}
			if refused == "" && reflect.DeepEqual(cfg, before) {
				continue
			}
			refused = ""
			select {
			case out <- cfg:
			case <-ctx.Done():
				return
			}
		}
	}
}

// Enroll trades the configured join token for a certificate.
func Enroll(ctx context.Context, cfg Config, version string, log hclog.Logger) (uplink.Identity, error) {
	a := &agent{Options: Options{Config: cfg, Version: version, Log: log}}
	id, err := a.enroll(ctx)
	if err != nil {
		return uplink.Identity{}, err
	}
	return *id, nil
}
