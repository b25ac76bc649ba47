package localpg

import (
	"context"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// What the operator may not set: how this package finds, guards and reads its server.
var reserved = []string{
	"config_file", "data_directory", "external_pid_file", "hba_file", "ident_file",
	"listen_addresses", "log_destination", "log_line_prefix", "logging_collector", "port",
	"unix_socket_directories", "unix_socket_group", "unix_socket_permissions", "cluster_name", "lc_messages",
}

var settingName = regexp.MustCompile(`^[a-z_][a-z0-9_]*(\.[a-z_][a-z0-9_]*)?$`)

// checkSettings refuses what would break the server's own arrangements.
func checkSettings(settings map[string]string) error {
	for name, value := range settings {
		switch {
		case !settingName.MatchString(name):
			return fmt.Errorf("PostgreSQL setting %.64q: not a setting's name (lower case letters, digits and _)", name)
		case slices.Contains(reserved, name):
			return fmt.Errorf("PostgreSQL setting %s: the private PostgreSQL sets it itself; remove it, or run your own server and give its DSN", name)
		case strings.ContainsRune(value, 0) || len(value) > 4096:
			return fmt.Errorf("PostgreSQL setting %s: the value is too long or holds a NUL", name)
		}
	}
	return nil
}

const mib = 1 << 20

// tuning is this package's choice, of what the measurements of the store asked for.
func tuning(memory, disk uint64) map[string]string {
	return map[string]string{
		"shared_buffers":     megabytes(clamp(memory/4, 64*mib, 4096*mib)),
		"max_wal_size":       megabytes(clamp(disk/10, 256*mib, 4096*mib)),
		"max_connections":    "100",
		"jit":                "off", // Compiling costs more than any query of ours runs.
		"autovacuum":         "on",
		"timezone":           "UTC",
		"log_timezone":       "UTC",
		"log_checkpoints":    "off",
		"synchronous_commit": "on",
		"checkpoint_timeout": "15min",
		// One query may touch every partition of a table and of its indexes.
		"max_locks_per_transaction": "256",
		// Tenants' data stays out of the operator's log: no statements, no details.
		"log_min_error_statement": "panic",
		"log_error_verbosity":     "terse",
	}
}

// fixed is how this package finds, guards and reads its server.
func (l *layout) fixed() map[string]string {
	return map[string]string{
		"cluster_name":            mark,
		"listen_addresses":        "",
		"port":                    strconv.Itoa(port),
		"unix_socket_directories": `"` + strings.ReplaceAll(l.inside(l.run), `"`, `""`) + `"`,
		"unix_socket_permissions": "0700",
		"log_destination":         "stderr",
		"logging_collector":       "off",
		"log_line_prefix":         logPrefix,
		"lc_messages":             "C",
	}
}

// arguments are PostgreSQL's. Settings go on the command line and not in a file:
// nothing to write, nothing to go stale, and they win over ALTER SYSTEM.
func (s *Server) arguments(ctx context.Context, o Options) []string {
	settings := tuning(memoryLimit(), fileSystemSize(s.layout.dir))
	if o.NoSync {
		maps.Copy(settings, map[string]string{"fsync": "off", "full_page_writes": "off"})
	}
	maps.Copy(settings, o.Settings)
	maps.Copy(settings, s.layout.fixed())
	base := []string{"-D", s.layout.inside(s.layout.cluster)}
	args := flags(base, settings)
	// lz4 is a choice of whoever built the binaries, and of the version: ask.
	for _, choice := range []struct{ name, second string }{{"wal_compression", "on"}, {"default_toast_compression", "pglz"}} {
		if _, set := o.Settings[choice.name]; set {
			continue
		}
		value := "lz4"
		probe := append(slices.Clone(base), "-c", choice.name+"=lz4", "-C", choice.name)
		if _, err := run(ctx, s.user, s.layout.files(), s.postgres, probe...); err != nil {
			value = choice.second
		}
		args = append(args, "-c", choice.name+"="+value)
	}
	return args
}

func flags(args []string, settings map[string]string) []string {
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		args = append(args, "-c", name+"="+settings[name])
	}
	return args
}

// memoryLimit is what this machine or its container has.
func memoryLimit() uint64 {
	var info unix.Sysinfo_t
	limit := uint64(1024 * mib)
	if err := unix.Sysinfo(&info); err == nil {
		limit = info.Totalram * uint64(info.Unit)
	}
	for _, path := range []string{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"} {
		data, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		if n, err := strconv.ParseUint(strings.TrimSpace(string(data)), 10, 64); err == nil && n > 0 {
			limit = min(limit, n)
		}
	}
	return limit
}

func fileSystemSize(path string) uint64 {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return 0
	}
	return st.Blocks * uint64(st.Bsize) //nolint:gosec // A block's size is positive.
}

func clamp(n, low, high uint64) uint64 { return min(max(n, low), high) }

func megabytes(n uint64) string { return strconv.FormatUint(n/mib, 10) + "MB" }
