package docker

import (
	"context"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"github.com/theazo/observability/agentd/source"
	"github.com/theazo/observability/agentd/source/sourcetest"
	"github.com/theazo/observability/shared/telemetry"
	"github.com/theazo/observability/test/dockertest"
)

// eventually waits until a condition holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), sourcetest.Patience)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%s: not within %s", what, sourcetest.Patience)
		}
	}
}

// A caller is known by its process, and by its container's id.
func TestByPIDAndID(t *testing.T) {
	e := dockertest.NewEngine(t)
	image := e.Image(t, linegen)
	l := start(t, e.Host(), nil)
	id := e.Run(t, dockertest.RunOptions{
		Image: image, Cmd: []string{"-sleep-after", "1h"},
		Labels: labels(t, "theazo.agent_id", "agt_pid", "theazo.session_id", "ses_pid", "theazo.org_id", "org_pid"),
	})
	other := e.Run(t, dockertest.RunOptions{Image: image, Cmd: []string{"-sleep-after", "1h"}})
	l.awaitEvent(t, telemetry.SandboxStarted, id)
	pidOf := func(id string) int {
		r, err := e.Client().ContainerInspect(t.Context(), id, client.ContainerInspectOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return r.Container.State.Pid
	}
	pid := pidOf(id)
	want := source.Target{Org: "org_pid", Origin: telemetry.Origin{
		Agent: "agt_pid", Session: "ses_pid", Provider: telemetry.Docker, Sandbox: telemetry.SandboxID(id), Source: telemetry.SourceAgent,
	}}
	if got, ok := l.src.ByPID(pid); !ok || got != want {
		t.Errorf("by process: %+v, %v", got, ok)
	}
	if got, ok := l.src.ByID(id); !ok || got != want {
		t.Errorf("by id: %+v, %v", got, ok)
	}
	for _, pid := range []int{0, -1, os.Getpid(), pidOf(other), 1 << 30} {
		if got, ok := l.src.ByPID(pid); ok {
			t.Errorf("process %d is taken for one of %+v", pid, got)
		}
	}
	if _, ok := l.src.ByID(other); ok {
		t.Error("a container that is excluded is known")
	}
	e.Remove(t, id)
	l.awaitEvent(t, telemetry.SandboxDestroyed, id)
	eventually(t, "a destroyed container is forgotten", func() bool { _, ok := l.src.ByID(id); return !ok })
	l.stop()
	if _, ok := l.src.ByPID(pid); ok {
		t.Error("a source that does not run knows a process")
	}
}

// Callers are known by the addresses that their containers have at the moment.
func TestByAddress(t *testing.T) {
	e := dockertest.NewEngine(t)
	image := e.Image(t, linegen)
	networks := []string{"theazo-test-1", "theazo-test-2"}
	for _, name := range networks {
		made, err := e.Client().NetworkCreate(t.Context(), name, client.NetworkCreateOptions{})
		if err != nil {
			t.Skipf("SKIPPED, the engine can make no network here: %v", err)
		}
		t.Cleanup(func() {
			_, _ = e.Client().NetworkRemove(context.WithoutCancel(t.Context()), made.ID, client.NetworkRemoveOptions{})
		})
	}
	l := start(t, e.Host(), nil)
	created, err := e.Client().ContainerCreate(t.Context(), client.ContainerCreateOptions{
		Config:     &container.Config{Image: image, Cmd: []string{"-sleep-after", "1h"}, Labels: labels(t, "theazo.agent_id", "agt_net")},
		HostConfig: &container.HostConfig{NetworkMode: container.NetworkMode(networks[0])},
	})
	if err != nil {
		t.Fatal(err)
	}
	id := created.ID
	t.Cleanup(func() {
		_, _ = e.Client().ContainerRemove(context.WithoutCancel(t.Context()), id, client.ContainerRemoveOptions{Force: true})
	})
	if _, err := e.Client().ContainerStart(t.Context(), id, client.ContainerStartOptions{}); err != nil {
		t.Skipf("SKIPPED, containers can have no network here: %v", err)
	}
	address := func(network string) netip.Addr {
		r, err := e.Client().ContainerInspect(t.Context(), id, client.ContainerInspectOptions{})
		if err != nil {
			t.Fatal(err)
		}
		n := r.Container.NetworkSettings.Networks[network]
		if n == nil {
			return netip.Addr{}
		}
		return n.IPAddress
	}
	known := func(a netip.Addr) bool {
		target, ok := l.src.ByAddress(a)
		return ok && target.Origin.Agent == "agt_net"
	}
	first := address(networks[0])
	eventually(t, "the address of the start", func() bool { return known(first) })
	if !known(netip.AddrFrom16(first.As16())) {
		t.Error("the same address as an IPv6 socket tells it is not known")
	}
	if _, err := e.Client().NetworkConnect(t.Context(), networks[1], client.NetworkConnectOptions{Container: id}); err != nil {
		t.Fatal(err)
	}
	second := address(networks[1])
	eventually(t, "the address of another network", func() bool { return known(second) && known(first) })
	if _, err := e.Client().NetworkDisconnect(t.Context(), networks[0], client.NetworkDisconnectOptions{Container: id}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the address that was given back", func() bool { return known(second) && !known(first) })
	e.Remove(t, id)
	eventually(t, "the address of a container that has ended", func() bool { return !known(second) })
}

func TestSenders(t *testing.T) {
	s := newSenders()
	a, b := netip.MustParseAddr("172.17.0.2"), netip.MustParseAddr("fd00::2")
	at := func(addr netip.Addr) string {
		id, ok := s.at(addr)
		if ok != (id != "") && ok {
			t.Errorf("%s: %q, %v", addr, id, ok)
		}
		if !ok {
			return ""
		}
		return id
	}
	s.set("one", []netip.Addr{a, b}, process{})
	if at(a) != "one" || at(b) != "one" || at(b.WithZone("eth0")) != "one" || at(netip.Addr{}) != "" {
		t.Error("addresses of one container")
	}
	s.set("two", []netip.Addr{a}, process{})
	if at(a) != "" || at(b) != "one" {
		t.Error("an address that two have is somebody's")
	}
	s.set("one", []netip.Addr{b}, process{})
	if at(a) != "two" || at(b) != "one" {
		t.Error("an address that only one has left is not known")
	}
	s.drop("one")
	s.drop("one")
	if at(b) != "" || len(s.byAddr) != 1 || len(s.byID) != 1 {
		t.Errorf("left: %v %v", s.byAddr, s.byID)
	}

	// A container that has ended before anybody said so.
	p, in := sleeper(t)
	s.set("three", []netip.Addr{b}, p)
	if at(b) != "three" {
		t.Error("a running container's address is not known")
	}
	if !(process{pid: p.pid, began: p.began + 1}).gone() {
		t.Error("a later process of the same number is taken for the first")
	}
	in.Close()
	eventually(t, "the process's end", func() bool { return at(b) == "" }) // also before it is waited for
}

// sleeper starts a process that ends when its input is closed.
func sleeper(t *testing.T) (process, io.Closer) {
	t.Helper()
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), "cat")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	})
	began, err := beganAt(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	return process{pid: cmd.Process.Pid, began: began}, in
}

func TestContainersIn(t *testing.T) {
	id, inner := strings.Repeat("a1", 32), strings.Repeat("b2", 32)
	for name, want := range map[string][]string{
		"/":                                     nil,
		"/docker/" + id:                         {id},
		"/system.slice/docker-" + id + ".scope": {id},
		"/kubepods/pod1/cri-containerd-" + id + ".scope/init":       {id},
		"/docker/" + id + "/docker/" + inner:                        {id, inner},
		"/../../docker/" + id:                                       {id},
		"/machine.slice/libpod-" + id + ".scope/container":          {id},
		"/docker/" + id[:63]:                                        nil,
		"/docker/" + strings.ToUpper(id):                            nil,
		filepath.Join("/x", strings.Repeat("é", 40), id+".service"): nil,
	} {
		if got := containersIn(name); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
}
