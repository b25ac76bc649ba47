package docker

import (
	"flag"
	"strconv"
	"testing"

	"github.com/theazo/observability/shared/telemetry"
	"github.com/theazo/observability/test/dockertest"
)

// full runs the tests of this file in the size of the published figures:
//
//	go test ./agentd/docker -run '^TestNothingIsLost' -v -args -full
var full = flag.Bool("full", false, "as many lines and containers as in docs/benchmarks.md")

func sized(short, long int) int {
	if *full {
		return long
	}
	return short
}

// A burst as fast as a container can print, into files that rotate at 10 MB and
// of which three are kept: followers of the engine's API lose most of it.
func TestNothingIsLostOfABurst(t *testing.T) {
	e := dockertest.NewEngine(t)
	image := e.Image(t, linegen)
	lines := sized(200_000, 1_000_000)
	for _, driver := range []string{jsonFile, localDriver} {
		t.Run(driver, func(t *testing.T) {
			l := start(t, e.Host(), nil)
			id := e.Run(t, dockertest.RunOptions{
				Image: image, Cmd: []string{"-n", strconv.Itoa(lines), "-size", "100"}, Labels: labels(t),
				LogDriver: driver, LogOpts: map[string]string{"max-size": "10m", "max-file": "3"},
			})
			l.awaitRead(t, id)
			records := l.stop()
			checkNumbers(t, records, id, lines)
			noGaps(t, records)
			t.Logf("FIGURE burst_%s_lost %d lines of %d", driver, lines-len(numbers(t, records, id, telemetry.Stdout)), lines)
		})
	}
}

// Containers that print three lines and are gone, one after the other and sixteen
// at a time: pollers see one of five.
func TestNothingIsLostOfShortContainers(t *testing.T) {
	e := dockertest.NewEngine(t)
	image := e.Image(t, linegen)
	n := sized(30, 100)
	for _, driver := range []string{jsonFile, localDriver} {
		for _, parallel := range []int{1, 16} {
			name := driver + "_" + strconv.Itoa(parallel)
			t.Run(name, func(t *testing.T) {
				l := start(t, e.Host(), nil)
				l.awaitWatch(t) // a container that is gone before that is told as a gap
				all := e.RunMany(t, n, parallel, dockertest.RunOptions{
					Image: image, Cmd: []string{"-n", "3"}, Labels: labels(t), AutoRemove: true, LogDriver: driver,
				})
				l.awaitEvent(t, telemetry.SandboxDestroyed, all...)
				records := l.stop()
				complete := 0
				for _, id := range all {
					if len(numbers(t, records, id, telemetry.Stdout)) == 3 {
						complete++
					}
				}
				if complete != n {
					t.Errorf("%d containers of %d are complete", complete, n)
				}
				noGaps(t, records)
				t.Logf("FIGURE short_containers_%s_complete %d of %d", name, complete, n)
			})
		}
	}
}

// Nobody can read the log of a container that came and went while agentd was away.
// That it was there, and that its lines are not, is told.
func TestAContainerNobodySawIsAGap(t *testing.T) {
	e := dockertest.NewEngine(t)
	image := e.Image(t, linegen)
	o := dockertest.RunOptions{Image: image, Cmd: []string{"-n", "3"}, Labels: labels(t)}
	l := start(t, e.Host(), nil)
	l.awaitWatch(t)
	seen := e.Run(t, o)
	e.AwaitExit(t, seen)
	e.Remove(t, seen)
	l.awaitEvent(t, telemetry.SandboxDestroyed, seen)
	before := l.stop()
	noGaps(t, before)
	unseen := e.Run(t, o)
	e.AwaitExit(t, unseen)
	e.Remove(t, unseen)

	l = start(t, e.Host(), before)
	l.awaitEvent(t, telemetry.SandboxDestroyed, seen, unseen)
	records := l.stop()
	checkNumbers(t, records, seen, 3)
	var gaps []telemetry.Gap
	for i := range records {
		gaps = append(gaps, records[i].Gaps...)
	}
	if len(gaps) != 1 || gaps[0].Sandbox != telemetry.SandboxID(unseen) || gaps[0].Count != telemetry.GapUnknownCount {
		t.Errorf("gaps %+v, want one of %.12s", gaps, unseen)
	}
}
