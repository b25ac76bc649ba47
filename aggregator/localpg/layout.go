package localpg

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	database    = "theazo" // also the name of its owner
	port        = 5432     // only a part of the socket's name
	clusterName = "cluster"
	unfinished  = "cluster.new"
	runName     = "run"
	tempPrefix  = "theazo-pg-"
	socketMax   = 107 // bytes, what sockaddr_un holds
)

// layout is where the server's files are, for this process and for PostgreSQL.
type layout struct {
	dir     string
	cluster string   // the data directory
	run     string   // the socket's directory
	tempRun bool     // run is in the system's temporary directory
	entry   *os.File // inherited by PostgreSQL as descriptor 3 when it cannot reach dir by name
}

// prepareDir makes dir if needed, checks that it is ours to use and decides whom
// PostgreSQL runs as.
func prepareDir(dir, wanted string) (account, error) {
	mode := fs.FileMode(0o700)
	if os.Geteuid() == 0 {
		mode = 0o711 // PostgreSQL's user passes through to its own directories.
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil { //nolint:gosec // Parents hold no data of ours.
		return account{}, fmt.Errorf("make the directory of the private PostgreSQL: %w", err)
	}
	if err := os.Mkdir(dir, mode); err != nil && !errors.Is(err, fs.ErrExist) {
		return account{}, fmt.Errorf("make the directory of the private PostgreSQL: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return account{}, fmt.Errorf("read the directory of the private PostgreSQL: %w (run this as root or as the owner)", err)
	}
	for _, e := range entries {
		if !slices.Contains([]string{"lock", clusterName, unfinished, runName, "lost+found"}, e.Name()) {
			return account{}, fmt.Errorf("%s holds %q: the private PostgreSQL needs a directory of its own", dir, e.Name())
		}
	}
	user, err := chooseAccount(dir, wanted)
	if err != nil {
		return account{}, err
	}
	if err := os.Chmod(dir, mode); err != nil {
		return account{}, fmt.Errorf("the private PostgreSQL in %s belongs to somebody else: %w (run this as root or as the owner)", dir, err)
	}
	return user, nil
}

// newLayout makes the socket's directory and opens dir for a user who cannot
// reach it by name.
func newLayout(dir string, user account) (*layout, error) {
	l := &layout{dir: dir, cluster: filepath.Join(dir, clusterName), run: filepath.Join(dir, runName)}
	if err := l.placeSocket(user); err != nil {
		return nil, err
	}
	ok, err := user.mayEnter(l.cluster)
	if err == nil && !ok {
		l.entry, err = os.Open(dir)
	}
	if err != nil {
		l.close()
		return nil, fmt.Errorf("open a way for user %s into %s: %w", user.name, dir, err)
	}
	return l, nil
}

// placeSocket makes the socket's directory: run, or, when its path is too long, a
// short one that run is a symbolic link to, so that a killed owner's is used again.
func (l *layout) placeSocket(user account) error {
	link := l.run
	target, err := os.Readlink(link)
	linked := err == nil
	// pgx and libpq take a comma for the next host.
	if socket := l.socket(); len(socket) <= socketMax && !strings.Contains(socket, ",") {
		if linked { // The directory had a longer path before.
			_ = os.Remove(link)
		}
		return l.own(l.run, user)
	}
	if linked && isPrivate(target, user) {
		l.run, l.tempRun = target, true
		return nil
	}
	run, err := os.MkdirTemp("", tempPrefix)
	if err != nil {
		return fmt.Errorf("make a short directory for PostgreSQL's socket, %s is too long a path: %w", l.dir, err)
	}
	l.run, l.tempRun = run, true
	if len(l.socket()) > socketMax {
		l.close()
		return fmt.Errorf("neither %s nor %s is short enough for PostgreSQL's socket (%d bytes): choose a shorter directory", l.dir, run, socketMax)
	}
	if err = l.own(run, user); err == nil {
		err = os.RemoveAll(link)
	}
	if err == nil {
		err = os.Symlink(run, link)
	}
	if err != nil {
		l.close()
		return fmt.Errorf("place PostgreSQL's socket: %w", err)
	}
	return nil
}

// isPrivate says whether path is one of placeSocket's short directories that only
// the account can enter.
func isPrivate(path string, user account) bool {
	info, err := os.Lstat(path)
	if err != nil || !info.IsDir() || info.Mode().Perm() != 0o700 || !strings.HasPrefix(filepath.Base(path), tempPrefix) {
		return false
	}
	uid, _, err := owner(path)
	return err == nil && uid == user.uid
}

// own makes a directory that only the account (and root) can enter.
func (l *layout) own(path string, user account) error {
	if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make PostgreSQL's directory: %w", err)
	}
	d, err := os.OpenFile(path, unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return fmt.Errorf("open PostgreSQL's directory: %w", err)
	}
	defer d.Close()
	if user.drop {
		if err := d.Chown(user.uid, user.gid); err != nil {
			return fmt.Errorf("give a directory to PostgreSQL's user %s: %w (a container without this right runs the aggregator as another user than root)", user.name, err)
		}
	}
	if err := d.Chmod(0o700); err != nil {
		return fmt.Errorf("close PostgreSQL's directory to others: %w", err)
	}
	return nil
}

// inside names a path of this process as PostgreSQL sees it. A descriptor opens
// what the modes of the parents (/root, say) close to its user, and neither
// loosens these modes nor gives PostgreSQL a capability.
func (l *layout) inside(path string) string {
	if l.entry == nil {
		return path
	}
	rest, ok := strings.CutPrefix(path, l.dir+"/")
	if !ok {
		return path
	}
	return "/proc/self/fd/3/" + rest
}

// files are what PostgreSQL inherits; the first becomes descriptor 3.
func (l *layout) files() []*os.File {
	if l.entry == nil {
		return nil
	}
	return []*os.File{l.entry}
}

func (l *layout) socket() string {
	return filepath.Join(l.run, ".s.PGSQL."+strconv.Itoa(port))
}

func (l *layout) dsn(db string) string {
	q := url.Values{"host": {l.run}, "port": {strconv.Itoa(port)}}
	// Neither pgx nor libpq takes a plus for a space.
	u := url.URL{Scheme: "postgres", User: url.User(database), Path: "/" + db, RawQuery: strings.ReplaceAll(q.Encode(), "+", "%20")}
	return u.String()
}

func (l *layout) close() {
	if l.entry != nil {
		l.entry.Close()
	}
	// A socket that is left in it belongs to a server that was killed: the next
	// start finds both by the link.
	if l.tempRun && os.Remove(l.run) == nil {
		_ = os.Remove(filepath.Join(l.dir, runName))
	}
}
