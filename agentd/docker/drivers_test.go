package docker

import (
	"context"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/moby/moby/client"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/theazo/observability/agentd/source"
	"github.com/theazo/observability/agentd/source/sourcetest"
	"github.com/theazo/observability/shared/telemetry"
	"github.com/theazo/observability/test/dockertest"
)

// remote makes an engine one of another machine: it is reached by TCP, and its
// files are not ours.
func remote(t *testing.T, host string) string {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var copying sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	copying.Go(func() {
		for {
			from, err := l.Accept()
			if err != nil {
				return // closed
			}
			to, err := new(net.Dialer).DialContext(ctx, "unix", strings.TrimPrefix(host, "unix://"))
			if err != nil {
				from.Close()
				continue
			}
			both := func() { from.Close(); to.Close() }
			copying.Go(func() { context.AfterFunc(ctx, both); defer both(); _, _ = io.Copy(to, from) })
			copying.Go(func() { defer both(); _, _ = io.Copy(from, to) })
		}
	})
	t.Cleanup(func() { cancel(); l.Close(); copying.Wait() })
	return "tcp://" + l.Addr().String()
}

// agentd dies while containers print, and goes on: from the files of the local
// driver, and through the API of an engine on another machine, of both drivers.
func TestCrashesWithOtherWaysOfReading(t *testing.T) {
	e := dockertest.NewEngine(t)
	image := e.Image(t, linegen)
	const lines = 3000
	for name, c := range map[string]struct {
		host    string
		drivers []string
	}{
		"files": {e.Host(), []string{localDriver}},
		"api":   {remote(t, e.Host()), []string{localDriver, jsonFile}},
	} {
		t.Run(name, func(t *testing.T) {
			var all []string
			want := map[sourcetest.Stream][]string{}
			for _, driver := range c.drivers {
				for _, tty := range []bool{false, true} {
					id := e.Create(t, dockertest.RunOptions{
						Image: image, Cmd: []string{"-n", strconv.Itoa(lines), "-rate", "3000", "-size", "60"}, Labels: labels(t), LogDriver: driver, TTY: tty,
					})
					all = append(all, id)
					key := sourcetest.Stream{Sandbox: telemetry.SandboxID(id), Stream: telemetry.Stdout}
					for i := 1; i <= lines; i++ {
						want[key] = append(want[key], linegenLine(i, 60))
					}
				}
			}
			sourcetest.Exercise(t, sourcetest.Subject{
				Crashes: 6,
				New: func(t *testing.T) source.Source {
					t.Helper()
					s, err := New(Config{Endpoint: c.host, Include: []string{"label=test=" + t.Name()}}, hclog.NewNullLogger(), prometheus.NewRegistry())
					if err != nil {
						t.Fatal(err)
					}
					return s
				},
				Write: func(context.Context) error {
					for _, id := range all {
						e.StartContainer(t, id)
					}
					for _, id := range all {
						e.AwaitExit(t, id)
					}
					return nil
				},
				Want: func() map[sourcetest.Stream][]string { return want },
			})
		})
	}
}

// A log that nobody can read is told of, once.
func TestALogThatNobodyCanRead(t *testing.T) {
	e := dockertest.NewEngine(t)
	l := start(t, e.Host(), nil)
	id := e.Run(t, dockertest.RunOptions{
		Image: e.Image(t, linegen), Cmd: []string{"-n", "10", "-sleep-after", "1h"}, Labels: labels(t), LogDriver: "syslog",
		LogOpts: map[string]string{"syslog-address": "unixgram://" + syslogServer(t), "cache-disabled": "true"},
	})
	told := func(r []sourcetest.Record) bool { return len(sourcetest.GapsOf(r)) > 0 }
	l.await(t, "a gap", told)
	records := l.stop()
	l = start(t, e.Host(), records)
	if _, err := e.Client().ContainerKill(t.Context(), id, client.ContainerKillOptions{Signal: "KILL"}); err != nil {
		t.Fatal(err)
	}
	l.awaitEvent(t, telemetry.SandboxExited, id)
	e.StartContainer(t, id)
	l.await(t, "the second start", func(r []sourcetest.Record) bool {
		n := 0
		for _, ev := range sourcetest.EventsOf(r, telemetry.SandboxID(id)) {
			if ev.Type == telemetry.SandboxStarted {
				n++
			}
		}
		return n == 2
	})
	gaps := sourcetest.GapsOf(l.stop())
	if len(gaps) != 1 || gaps[0].Reason != telemetry.GapUnreadable || gaps[0].Sandbox != telemetry.SandboxID(id) {
		t.Errorf("gaps %+v", gaps)
	}
}
