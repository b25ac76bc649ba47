package docker

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/theazo/observability/shared/health"
)

// Bounds of one examination.
const (
	maxExamined = 500 // containers
	maxNamed    = 5   // of them in one finding
)

// What a log's files should be able to hold, so that agentd can be away for a
// while: at 20 MB/s, a burst that one container can make, 12 seconds.
const (
	goodSize = 50 << 20
	goodLog  = 5 * goodSize
	poorLog  = goodLog / 10
)

// Doctor examines the engine that cfg names, and this host, for what would make
// agentd lose something or work harder than it must. Run it as the user that
// agentd runs as.
func Doctor(ctx context.Context, cfg Config) []health.Finding {
	return examine(ctx, &cfg, newMobyEngine)
}

func examine(ctx context.Context, cfg *Config, connect func(endpoint string) (engine, error)) []health.Finding {
	choose, err := newSelection(cfg)
	if err != nil {
		return []health.Finding{{Level: health.Fail, Check: "docker settings", Detail: err.Error()}}
	}
	x := &examination{cfg: cfg, choose: choose}
	e, err := connect(cfg.Endpoint)
	if err == nil {
		defer e.Close()
		x.info, err = ask(ctx, e)
	}
	if err != nil {
		x.find(health.Fail, "docker engine", fmt.Sprintf("No engine answers: %v. No container is seen, and of their logs only those that are known already are read on.", err),
			"Start it (systemctl start docker), name it with docker.endpoint, and let agentd use its socket (group docker, or the socket proxy unit).")
		return x.found
	}
	x.find(health.OK, "docker engine", fmt.Sprintf("Version %s (API %s) answers at %s.", x.info.Version, x.info.API, x.info.Endpoint), "")
	x.directory()
	x.containers(ctx, e)
	x.driver()
	x.drivers()
	x.rotation()
	x.labels()
	x.liveRestore()
	x.watches()
	x.descriptors()
	return x.found
}

// examination collects findings about one engine.
type examination struct {
	cfg    *Config
	choose selection
	info   engineInfo
	direct bool // log files are ours to read
	all    int  // containers, running or not
	read   []*details
	found  []health.Finding
}

func (x *examination) find(level health.Level, check, detail, mend string) {
	x.found = append(x.found, health.Finding{Level: level, Check: check, Detail: detail, Mend: mend})
}

// directory checks that log files can be read.
func (x *examination) directory() {
	const check = "docker log files"
	const otherwise = "Logs come through the engine's API instead, which costs 25 to 40 times the CPU and loses most lines of a burst that rotates the log."
	root := x.cfg.LogRoot
	if root == "" && x.info.Local && x.info.Root != "" {
		root = filepath.Join(x.info.Root, "containers")
	}
	if root == "" {
		x.find(health.Warn, check, "The engine is on another machine, or says not where it keeps its files. "+otherwise,
			"Run agentd on the engine's own machine.")
		return
	}
	entries, err := os.ReadDir(root)
	for _, e := range entries {
		if err != nil || !isContainerID(e.Name()) {
			continue
		}
		var f *os.File
		if f, err = os.Open(filepath.Join(root, e.Name(), configFile)); err == nil {
			err = f.Close()
		} else if os.IsNotExist(err) {
			err = nil // it has just gone
		}
	}
	if err != nil {
		x.find(health.Warn, check, fmt.Sprintf("Not readable: %v. %s", err, otherwise),
			"Let agentd read "+root+": run it as root, or give it CAP_DAC_READ_SEARCH; in a container mount "+root+" read-only at the same place.")
		return
	}
	x.direct = true
	x.find(health.OK, check, root+" can be read.", "")
}

const mendProxy = "Let agentd read /containers/json and /containers/ID/json, if a proxy stands before the engine."

// containers looks at all that run.
func (x *examination) containers(ctx context.Context, e engine) {
	const check = "docker containers"
	asking, cancel := context.WithTimeout(ctx, askTimeout)
	list, err := e.List(asking)
	cancel()
	if err != nil {
		x.find(health.Fail, check, fmt.Sprintf("The engine does not list its containers: %v. They are known only from their events.", err),
			mendProxy)
		return
	}
	x.all = len(list)
	running, excluded, refused := 0, 0, error(nil)
	for _, l := range list {
		if l.State != "running" && l.State != "paused" {
			continue
		}
		if running++; running > maxExamined {
			continue
		}
		asking, cancel := context.WithTimeout(ctx, askTimeout)
		d, err := e.Inspect(asking, l.ID)
		cancel()
		switch {
		case err != nil:
			refused = err
		case x.choose.wants(d):
			x.read = append(x.read, d)
		default:
			excluded++
		}
	}
	detail := fmt.Sprintf("%d of %d run", running, len(list))
	if excluded > 0 {
		detail += fmt.Sprintf("; %d are left out by docker.include and docker.exclude", excluded)
	}
	if running > maxExamined {
		detail += fmt.Sprintf("; the first %d were looked at", maxExamined)
	}
	level, mend := health.OK, ""
	if excluded > 0 {
		level = health.Note
	}
	if refused != nil && len(x.read) == 0 {
		level, detail = health.Fail, detail+fmt.Sprintf("; the engine tells nothing about one: %v", refused)
		mend = mendProxy
	}
	x.find(level, check, detail+".", mend)
}

// keeps says what becomes of a log by its driver.
func keeps(driver string) (level health.Level, detail string) {
	switch driver {
	case jsonFile, localDriver:
		return health.OK, "is read from its files, completely"
	case "none":
		return health.Fail, "keeps what containers print nowhere: no line of theirs can be read"
	}
	return health.Warn, "keeps a copy for agentd through a queue of 1 MB that drops lines silently while a container prints fast"
}

const mendDriver = `Set "log-driver": "json-file" and "log-opts": {"max-size": "50m", "max-file": "5"} in /etc/docker/daemon.json, restart the engine, and make the containers anew.`

// driver looks at what new containers get.
func (x *examination) driver() {
	level, detail := keeps(x.info.LogDriver)
	mend := ""
	if level != health.OK {
		mend = mendDriver
	}
	x.find(level, "docker log driver", fmt.Sprintf("The engine's default %q %s.", x.info.LogDriver, detail), mend)
}

// drivers looks at what running containers have.
func (x *examination) drivers() {
	by := map[string][]string{}
	for _, d := range x.read {
		if level, _ := keeps(d.Driver); level != health.OK {
			by[d.Driver] = append(by[d.Driver], d.Name)
		}
	}
	for _, driver := range slices.Sorted(maps.Keys(by)) {
		level, detail := keeps(driver)
		x.find(level, "container log driver", fmt.Sprintf("%s: the driver %q %s.", named(by[driver]), driver, detail),
			"Run them with --log-driver json-file. "+mendDriver)
	}
}

// rotation looks at how much of a log the engine keeps.
func (x *examination) rotation() {
	const check = "container log rotation"
	var endless, single, small []string
	for _, d := range x.read {
		if d.Driver != jsonFile && d.Driver != localDriver {
			continue
		}
		size, files := logSize(d)
		switch {
		case size <= 0:
			endless = append(endless, d.Name)
		case files == 1:
			single = append(single, d.Name)
		case size*files < poorLog:
			small = append(small, d.Name)
		}
	}
	const mend = `Run them with --log-opt max-size=50m --log-opt max-file=5, or set "log-opts" in /etc/docker/daemon.json.`
	if len(endless) > 0 {
		x.find(health.Warn, check, named(endless)+": the log grows until the disk is full; then the engine and agentd's own buffer lose lines.", mend)
	}
	if len(single) > 0 {
		x.find(health.Warn, check, named(single)+": max-file is 1, so each rotation throws away what was not read yet.", mend)
	}
	if len(small) > 0 {
		x.find(health.Warn, check, fmt.Sprintf("%s: the log's files hold less than %d MB. While agentd does not run, a burst is gone in a second or two.", named(small), poorLog>>20), mend)
	}
	if len(endless)+len(single)+len(small) == 0 && len(x.read) > 0 {
		x.find(health.OK, check, "Logs are bounded, and long enough.", "")
	}
}

// logSize returns the size of one of a log's files, and how many there are; 0 is
// without bound.
func logSize(d *details) (size, files int64) {
	files = 1
	if d.Driver == localDriver {
		size, files = 20<<20, 5
	}
	if s, ok := d.LogOpts["max-size"]; ok {
		size = engineSize(s)
	}
	if n, err := strconv.ParseInt(d.LogOpts["max-file"], 10, 32); err == nil && n > 0 {
		files = n
	}
	return min(size, 1<<40), min(files, maxRotated)
}

// engineSize reads a size as the engine writes it: 10m, 1.5g. 0: no bound.
func engineSize(s string) int64 {
	s = strings.TrimSuffix(strings.ToLower(strings.TrimSpace(s)), "b")
	unit := int64(1)
	if n := len(s) - 1; n > 0 {
		if i := strings.IndexByte("kmgt", s[n]); i >= 0 {
			unit, s = 1<<(10*(i+1)), s[:n]
		}
	}
	f, err := strconv.ParseFloat(strings.TrimSpace(s), 64)
	bytes := f * float64(unit)
	if err != nil || !(bytes > 0) || bytes > 1<<60 {
		return 0
	}
	return int64(bytes)
}

// labels looks for identities that are none.
func (x *examination) labels() {
	var bad []string
	for _, d := range x.read {
		identify(x.cfg, d, func(label, value string, err error) {
			bad = append(bad, fmt.Sprintf("%s (%s %.40q %v)", d.Name, label, value, err))
		})
	}
	if len(bad) > 0 {
		x.find(health.Warn, "container labels", named(bad)+": the label is ignored, so the records are somebody else's or nobody's.",
			"Have the orchestrator set ids of up to 128 of A-Z a-z 0-9 _ . : -")
	}
}

func (x *examination) liveRestore() {
	const check = "docker live-restore"
	if x.info.LiveRestore {
		x.find(health.OK, check, "Containers go on while the engine restarts.", "")
		return
	}
	x.find(health.Note, check, "Restarting or upgrading the engine stops every container.", `Set "live-restore": true in /etc/docker/daemon.json (not with Swarm).`)
}

// watches compares the kernel's limits with what is watched: a directory and a
// log for each container, and one descriptor of inotify.
func (x *examination) watches() {
	const check = "inotify limits"
	if !x.direct {
		return
	}
	const otherwise = "Logs are looked at every 250 ms instead, and a container that lives for less can be missed."
	need := 4 * (x.all + 64) // twice what there is, and room for other programs
	if have, err := sysctl("fs/inotify/max_user_watches"); err == nil && have < int64(need) {
		x.find(health.Warn, check, fmt.Sprintf("fs.inotify.max_user_watches is %d for %d containers. %s", have, x.all, otherwise),
			fmt.Sprintf("sysctl -w fs.inotify.max_user_watches=%d, and in /etc/sysctl.d to keep it.", max(need, 1<<16)))
		return
	}
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err != nil {
		x.find(health.Warn, check, fmt.Sprintf("The kernel gives no inotify descriptor: %v. %s", err, otherwise),
			"Raise fs.inotify.max_user_instances (128 is the default, for all programs of a user).")
		return
	}
	_ = unix.Close(fd) // nothing was written
	x.find(health.OK, check, fmt.Sprintf("Enough for %d containers.", x.all), "")
}

// descriptors compares the limit of open files with what is held.
func (x *examination) descriptors() {
	const check = "open file limit"
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return
	}
	const each = 4 // a log, rotated ones unread, a process, and room
	need := uint64(each * (len(x.read) + 64))
	if limit.Cur < need && limit.Max < need {
		x.find(health.Warn, check, fmt.Sprintf("%d for %d containers. Logs that cannot be held open can rotate away unread.", limit.Max, len(x.read)),
			fmt.Sprintf("LimitNOFILE=%d in agentd's unit, or --ulimit nofile.", max(need, 1<<16)))
		return
	}
	x.find(health.OK, check, fmt.Sprintf("%d, enough for %d containers.", max(limit.Cur, min(limit.Max, need)), len(x.read)), "")
}

func sysctl(name string) (int64, error) {
	b, err := readSmall("/proc/sys/" + name)
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
}

// named lists some of many.
func named(names []string) string {
	names = slices.Sorted(slices.Values(names))
	if len(names) > maxNamed {
		return fmt.Sprintf("%s and %d more containers", strings.Join(names[:maxNamed], ", "), len(names)-maxNamed)
	}
	return strings.Join(names, ", ")
}
