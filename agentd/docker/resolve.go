package docker

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path"
	"strconv"
	"strings"
	"sync"

	"github.com/theazo/observability/agentd/source"
)

// ByAddress returns whose container an address belongs to: the sender of a
// request to this node. It knows the addresses of running containers in all of
// their networks; one that shares the host's or another container's network has
// none of its own. An address that two networks gave away is nobody's, and so is
// one whose container has ended although the engine has not said so yet.
//
// A container is known some milliseconds after it started: a caller that does
// not find one may ask again a little later.
func (s *Source) ByAddress(addr netip.Addr) (source.Target, bool) {
	all := s.known.Load()
	if all == nil {
		return source.Target{}, false
	}
	id, ok := all.senders.at(addr)
	if !ok {
		return source.Target{}, false
	}
	return s.ByID(id)
}

// ByID returns whose container has that full id, from when it is identified until
// it is destroyed and read.
func (s *Source) ByID(id string) (source.Target, bool) {
	all := s.known.Load()
	if all == nil {
		return source.Target{}, false
	}
	if found := all.get(id); found != nil {
		if target := found.whom(); target != nil {
			return *target, true
		}
	}
	return source.Target{}, false
}

// ByPID returns in whose container a process of this host runs: the peer of a
// unix socket that is mounted into containers. Where one engine runs in a
// container of another, the outer one counts.
func (s *Source) ByPID(pid int) (source.Target, bool) {
	all, err := hierarchies(pid)
	if err != nil {
		return source.Target{}, false
	}
	var target source.Target
	found := ""
	for _, h := range all {
		for _, id := range containersIn(h.name) {
			t, ok := s.ByID(id)
			if !ok {
				continue
			}
			if found != "" && found != id {
				return source.Target{}, false // the hierarchies disagree
			}
			found, target = id, t
			break // what is below was named by the container itself
		}
	}
	return target, found != ""
}

// senders knows the running containers by their addresses.
type senders struct {
	mu     sync.Mutex
	byAddr map[netip.Addr][]string // ids; more than one where networks overlap
	byID   map[string]sender
}

// sender is a running container: its addresses and its first process.
type sender struct {
	addrs []netip.Addr
	init  process
}

func newSenders() *senders {
	return &senders{byAddr: map[netip.Addr][]string{}, byID: map[string]sender{}}
}

// set puts a running container's addresses in the place of those it had.
func (s *senders) set(id string, addrs []netip.Addr, init process) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dropLocked(id)
	if len(addrs) == 0 {
		return
	}
	for _, a := range addrs {
		s.byAddr[a] = append(s.byAddr[a], id)
	}
	s.byID[id] = sender{addrs: addrs, init: init}
}

// drop forgets a container's addresses, which another may have by now.
func (s *senders) drop(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dropLocked(id)
}

func (s *senders) dropLocked(id string) {
	for _, a := range s.byID[id].addrs {
		var others []string
		for _, other := range s.byAddr[a] {
			if other != id {
				others = append(others, other)
			}
		}
		if len(others) == 0 {
			delete(s.byAddr, a)
		} else {
			s.byAddr[a] = others
		}
	}
	delete(s.byID, id)
}

// at returns the one container that has the address.
func (s *senders) at(addr netip.Addr) (id string, ok bool) {
	s.mu.Lock()
	ids := s.byAddr[addr.Unmap().WithZone("")]
	var init process
	if len(ids) == 1 {
		id, init = ids[0], s.byID[ids[0]].init
	}
	s.mu.Unlock()
	return id, id != "" && !init.gone()
}

// process is one process of this host, told from later ones of its number. The
// zero value is one that cannot be looked at from here.
type process struct {
	pid   int
	began uint64 // since the machine's start, in the kernel's ticks
}

// initOf returns a container's first process, where this process can see it.
func initOf(pid int, id string) process {
	if pid <= 0 {
		return process{}
	}
	all, err := hierarchies(pid)
	if err != nil {
		return process{}
	}
	for _, h := range all {
		for _, found := range containersIn(h.name) {
			if found != id {
				continue
			}
			if began, err := beganAt(pid); err == nil {
				return process{pid: pid, began: began}
			}
		}
	}
	return process{}
}

// gone reports whether the process has ended. One that cannot be seen counts as
// running, for the engine tells when it has ended.
func (p process) gone() bool {
	if p.pid == 0 {
		return false
	}
	began, err := beganAt(p.pid)
	return errors.Is(err, os.ErrNotExist) || err == nil && began != p.began
}

// beganAt reads when a process began from /proc.
func beganAt(pid int) (uint64, error) {
	b, err := readSmall("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, err
	}
	// The program's name, in parentheses, may hold blanks and parentheses.
	const after = 19 // fields between the name and the beginning
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(fields) <= after {
		return 0, fmt.Errorf("/proc/%d/stat has %d fields", pid, len(fields))
	}
	if fields[0] == "Z" || fields[0] == "X" {
		return 0, os.ErrNotExist // ended, and not yet waited for
	}
	return strconv.ParseUint(fields[after], 10, 64)
}

// hierarchy is a process's place in one hierarchy of control groups.
type hierarchy struct {
	controllers string // of version 1, parted by commas; empty: version 2
	name        string
}

// hierarchies reads a process's control groups.
func hierarchies(pid int) ([]hierarchy, error) {
	b, err := readSmall("/proc/" + strconv.Itoa(pid) + "/cgroup")
	if err != nil {
		return nil, err
	}
	var all []hierarchy
	for line := range strings.Lines(string(b)) {
		// number:controllers:name
		if part := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3); len(part) == 3 {
			all = append(all, hierarchy{controllers: part[1], name: part[2]})
		}
	}
	return all, nil
}

// containersIn returns the ids in a control group's name, the outermost first:
// /docker/ID, /system.slice/docker-ID.scope, or wherever the engine was told to
// put them.
func containersIn(name string) []string {
	const idLength = 64
	var found []string
	for part := range strings.SplitSeq(path.Clean(name), "/") {
		part = strings.TrimSuffix(part, ".scope")
		if len(part) < idLength {
			continue
		}
		if id := part[len(part)-idLength:]; isContainerID(id) {
			found = append(found, id)
		}
	}
	return found
}

// maxSmall bounds what is read of a file that the kernel makes up.
const maxSmall = 64 << 10

// readSmall reads a file of /proc or of a control group.
func readSmall(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxSmall))
}
