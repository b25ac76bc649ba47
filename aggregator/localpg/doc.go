// Package localpg runs the private PostgreSQL of the one-command start: no DSN
// given, and the aggregator still has the real engine, from the machine's own
// binaries, as a child process that listens on nothing but a unix socket.
//
// What it promises:
//
//   - Start returns when the server answers queries, or with the reason why it
//     does not; until then it repairs what an earlier, killed run left behind: a
//     half-made cluster, a postmaster that is still stopping, its lock files.
//   - A postmaster that ends by itself is started again, with the same DSN. A
//     pool that reconnects needs to know nothing of it.
//   - The server never outlives its parent by more than a fast shutdown, also
//     when the parent is killed with -9, and Stop is bounded.
//   - One owner for each directory: a second Start fails with ErrInUse and
//     names the process. Commands beside a running aggregator Borrow its server.
//   - PostgreSQL never runs as root. From a root parent it runs as the owner of
//     its directory or as Options.User, wherever the directory lies: parents
//     that this user may not enter are bridged by an inherited descriptor.
//   - A cluster is opened only by binaries of its own major version.
//
// The life of a Server; its supervisor, one goroutine, walks it:
//
//	        lock, programs, initdb
//	Start --------------------------> starting ------> Start returns why it fails
//	                                     | answers
//	                                     v         Stop               exited
//	                      +----------> ready ----------> stopping ----------> stopped
//	             answers  |              | ended             ^                  ^
//	                      |              v by itself         | Stop             |
//	                      +---------- restarting ------------+                  |
//	                                     | the cluster's files are gone         |
//	                                     +-------- (Wait tells) ----------------+
//
// What lies in the directory; a cluster that initdb has not finished has another
// name, so that finishing it is one rename:
//
//	lock          held by the owner for its life; names its pid and the DSN
//	cluster/      the PostgreSQL data directory, 0700
//	cluster.new/  the same while initdb works on it, removed at the next start
//	run/          the socket, 0700; a link into the system's temporary directory
//	              when its path is too long for a socket (107 bytes)
//
// The cluster is UTF-8 with C collation: text sorts by bytes, on every machine
// and after every upgrade of its C library. Authentication is by the directory's
// mode: the socket is in a directory that only PostgreSQL's user and root enter.
//
// Linux only: it relies on /proc, on the parent-death signal and on locks of open
// file descriptions.
package localpg
