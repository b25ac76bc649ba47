package docker

import (
	"cmp"
	"errors"
	"fmt"
	"path"
	"strings"
	"time"

	"github.com/theazo/observability/shared/telemetry"
)

// Config says which engine to read, and what of it.
type Config struct {
	// Endpoint in the form of DOCKER_HOST (unix:///run/docker.sock,
	// tcp://host:2376). Empty: $DOCKER_HOST, else the default socket.
	Endpoint string
	// Include and Exclude choose containers by patterns such as "name=agent-*",
	// "image=registry/*", "label=tier=prod", "label=tier" (is present). * stands
	// for anything but a slash. A container is read when it matches one of
	// Include (or Include is empty) and none of Exclude.
	Include, Exclude []string
	// DefaultOrg is the organisation of containers without a theazo.org_id
	// label. Empty: the node's own.
	DefaultOrg telemetry.OrgID
	// DefaultEnv is the environment of containers without a
	// theazo.environment label.
	DefaultEnv telemetry.Environment
	// LogRoot is where the engine keeps its containers' directories. Empty:
	// what the engine says (DockerRootDir/containers) where it is local.
	LogRoot string
	// StatsInterval is between two samples of what each running container uses, sent
	// as metric points. 0: none are taken.
	StatsInterval time.Duration
	// From says where to begin with containers that existed before the first
	// start ever. Containers that appear later are read from their beginning.
	From From
	// Files reads json files that match these globs, from their beginning, and
	// no engine at all. Only the last part of a glob may hold a pattern. A
	// file's sandbox is its name without "-json.log", and its agent too where
	// that begins with "agt_".
	Files []string
	// MaxHeldFiles and MaxHeldBytes bound what is held of one container's log
	// after the engine has deleted it, until it is read: such files take disk
	// space that nobody sees. Past half of either the log is read before others;
	// past it the oldest file is given up with a gap. 0: 64 files and 256 MiB.
	MaxHeldFiles int
	MaxHeldBytes int64
	// Keeper gets the log files that are open when the source ends, and gives
	// them to the next one. nil: what is deleted by then is lost, if it cannot be
	// read in the little time that a source has to end.
	Keeper Keeper
}

// The limits of what is held, unless configured.
const (
	defaultHeldFiles = 64
	defaultHeldBytes = 256 << 20
)

func (c *Config) limits() limits {
	return limits{files: cmp.Or(c.MaxHeldFiles, defaultHeldFiles), bytes: cmp.Or(c.MaxHeldBytes, defaultHeldBytes)}
}

// From says where to begin with a log that was there before.
type From string

// The beginnings.
const (
	FromBeginning From = "beginning" // also when From is empty
	FromNow       From = "now"
)

// shortestStats is the shortest interval that does not cost more than it tells.
const shortestStats = time.Second

// Validate returns an error that names every bad setting.
func (c *Config) Validate() error {
	var errs []error
	switch c.From {
	case "", FromBeginning, FromNow:
	default:
		errs = append(errs, fmt.Errorf("from: %q is neither %q nor %q", c.From, FromBeginning, FromNow))
	}
	if c.MaxHeldFiles < 0 || c.MaxHeldBytes < 0 {
		errs = append(errs, errors.New("limits of held files must not be negative"))
	}
	if c.StatsInterval != 0 && c.StatsInterval < shortestStats {
		errs = append(errs, fmt.Errorf("stats interval: %s is shorter than %s; 0 turns stats off", c.StatsInterval, shortestStats))
	}
	if c.DefaultOrg != "" {
		if err := telemetry.CheckID(string(c.DefaultOrg)); err != nil {
			errs = append(errs, fmt.Errorf("default organisation %.40q %w", string(c.DefaultOrg), err))
		}
	}
	if _, err := parseRules("include", c.Include); err != nil {
		errs = append(errs, err)
	}
	if _, err := parseRules("exclude", c.Exclude); err != nil {
		errs = append(errs, err)
	}
	for _, glob := range c.Files {
		if _, err := path.Match(glob, ""); err != nil {
			errs = append(errs, fmt.Errorf("files: %q: %w", glob, err))
		}
	}
	return errors.Join(errs...)
}

// rule is one pattern of Include or Exclude.
type rule struct {
	what    string // "name", "image" or "label"
	label   string // the label's name
	pattern string
}

func parseRules(setting string, patterns []string) ([]rule, error) {
	var rules []rule
	for _, p := range patterns {
		what, pattern, ok := strings.Cut(p, "=")
		if !ok || pattern == "" || what != "name" && what != "image" && what != "label" {
			return nil, fmt.Errorf("%s: %q is not name=…, image=… or label=…", setting, p)
		}
		r := rule{what: what, pattern: pattern}
		if what == "label" {
			if r.label, r.pattern, ok = strings.Cut(pattern, "="); !ok {
				r.pattern = "" // the label's presence is enough
			}
		}
		if _, err := path.Match(r.pattern, ""); err != nil {
			return nil, fmt.Errorf("%s: %q: %w", setting, p, err)
		}
		rules = append(rules, r)
	}
	return rules, nil
}

func (r rule) matches(d *details) bool {
	subject := ""
	switch r.what {
	case "name":
		subject = d.Name
	case "image":
		subject = d.Image
	case "label":
		value, ok := d.Labels[r.label]
		if !ok || r.pattern == "" {
			return ok
		}
		subject = value
	}
	ok, err := path.Match(r.pattern, subject)
	return ok && err == nil
}

// selection is Include and Exclude, parsed.
type selection struct{ include, exclude []rule }

func newSelection(c *Config) (selection, error) {
	in, err := parseRules("include", c.Include)
	if err != nil {
		return selection{}, err
	}
	out, err := parseRules("exclude", c.Exclude)
	return selection{include: in, exclude: out}, err
}

func (s selection) wants(d *details) bool {
	for _, r := range s.exclude {
		if r.matches(d) {
			return false
		}
	}
	for _, r := range s.include {
		if r.matches(d) {
			return true
		}
	}
	return len(s.include) == 0
}
