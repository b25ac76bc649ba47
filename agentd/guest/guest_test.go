package guest

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeHost is a directory that looks like /proc and /sys/fs/cgroup.
type fakeHost struct {
	t    *testing.T
	root string
}

func newFakeHost(t *testing.T) fakeHost {
	t.Helper()
	return fakeHost{t, t.TempDir()}
}

func (f fakeHost) host() host {
	return host{proc: filepath.Join(f.root, "proc"), cgroup: filepath.Join(f.root, "cgroup")}
}

func (f fakeHost) write(name, text string) {
	f.t.Helper()
	path := filepath.Join(f.root, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		f.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		f.t.Fatal(err)
	}
}

func psi(some, full string) string {
	return "some avg10=" + some + " avg60=0.00 avg300=0.00 total=1\nfull avg10=" + full + " avg60=0.00 avg300=0.00 total=1\n"
}

func TestStallsAreReadWhereverTheKernelShowsThem(t *testing.T) {
	f := newFakeHost(t)
	if _, ok := f.host().stalls(); ok {
		t.Error("stalls without PSI")
	}
	f.write("cgroup/cpu.pressure", psi("12.50", "0.00")) // hidden in /proc
	f.write("proc/pressure/io", psi("90.00", "33.00"))
	f.write("cgroup/io.pressure", psi("1.00", "1.00")) // /proc goes before
	f.write("proc/pressure/memory", "nonsense avg10=abc\nfull avg10=-4 x\n")
	s, ok := f.host().stalls()
	if want := (Stalls{CPU: 12.5, IO: 33}); !ok || s != want {
		t.Errorf("%+v %t, want %+v", s, ok, want)
	}
}

func TestOnlyMemoryRaisesThePressureToTheTop(t *testing.T) {
	for want, s := range map[float64]Stalls{0: {CPU: 50, IO: 20, Memory: 5}, 0.8: {CPU: 100, IO: 100, Memory: 10}, 1: {Memory: 60}, 0.4: {CPU: 72.5}} {
		if got := s.pressure(); got != want {
			t.Errorf("%+v: %g, want %g", s, got, want)
		}
	}
}

func TestPressureRisesAtOnceAndFallsLate(t *testing.T) {
	var h hysteresis
	raw := []float64{0, .2, .7, .65, .2, .1, .7, .1, .1, .3, .1, .1, .1, 0, 0, 0, 0, 0}
	want := []float64{0, .2, .7, .7, .7, .7, .7, .7, .7, .7, .7, .3, .3, .3, .3, .3, .1, .1}
	for i, r := range raw {
		if got := h.next(r); got != want[i] {
			t.Fatalf("look %d: raw %g gives %g, want %g", i, r, got, want[i])
		}
	}
}

func TestTheLowestLimitAroundUsCounts(t *testing.T) {
	f := newFakeHost(t)
	if limit, _ := f.host().memoryLimit(); limit != 0 {
		t.Errorf("a limit of %d from nowhere", limit)
	}
	f.write("proc/self/cgroup", "0::/system.slice/agentd.service\n")
	f.write("cgroup/system.slice/agentd.service/memory.max", "max\n")
	f.write("cgroup/system.slice/agentd.service/memory.high", "200000000\n")
	f.write("cgroup/system.slice/memory.max", "100000000\n")
	if limit, where := f.host().memoryLimit(); limit != 100000000 || where != "/system.slice" {
		t.Errorf("%d of %q", limit, where)
	}
	v1 := newFakeHost(t)
	v1.write("proc/self/cgroup", "5:cpu:/x\n4:memory:/docker/abc\n")
	v1.write("cgroup/memory/docker/abc/memory.limit_in_bytes", "9223372036854771712\n")
	v1.write("cgroup/memory/memory.limit_in_bytes", "50000000\n")
	if limit, where := v1.host().memoryLimit(); limit != 50000000 || where != "/" {
		t.Errorf("%d of %q", limit, where)
	}
}

// keepRuntime puts back what a Guest sets of the runtime.
func keepRuntime(t *testing.T) {
	t.Helper()
	limit, procs, percent := debug.SetMemoryLimit(-1), runtime.GOMAXPROCS(0), debug.SetGCPercent(100)
	t.Cleanup(func() {
		debug.SetMemoryLimit(limit)
		debug.SetGCPercent(percent)
		runtime.GOMAXPROCS(procs)
	})
}

func TestAGuestsLife(t *testing.T) {
	keepRuntime(t)
	f := newFakeHost(t)
	f.write("proc/self/cgroup", "0::/agentd\n")
	f.write("cgroup/agentd/memory.max", "67108864\n")
	f.write("proc/pressure/cpu", psi("0.00", "0.00"))
	f.write("proc/self/statm", "9999 100 1 1 0 1 0\n")
	var out bytes.Buffer
	reg := prometheus.NewRegistry()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		g := &Guest{cfg: Config{MaxProcs: 1}, host: f.host(), log: hclog.New(&hclog.LoggerOptions{Output: &out})}
		g.start(ctx, reg)
		if got, want := debug.SetMemoryLimit(-1), int64(57042534); got != want || runtime.GOMAXPROCS(0) != 1 {
			t.Errorf("limit %d, want %d; %d processors", got, want, runtime.GOMAXPROCS(0))
		}
		if got := debug.SetGCPercent(garbagePercent); got != garbagePercent {
			t.Errorf("garbage is collected at %d %%", got)
		}
		if p := g.Pressure(); p != 0 {
			t.Errorf("pressure %g on an idle host", p)
		}

		f.write("proc/pressure/cpu", psi("95.00", "0.00"))
		waitLooks(1)
		if s := g.Status(); g.Pressure() != 0.8 || s.Stalled == nil || s.Stalled.CPU != 95 || s.Budget != 64<<20 {
			t.Errorf("pressure %g, %+v", g.Pressure(), s)
		}

		f.write("proc/self/statm", "9999 "+strconv.Itoa((80<<20)/os.Getpagesize())+" 1 1 0 1 0\n")
		waitLooks(2)
		if g.Pressure() != 1 || strings.Count(out.String(), "more memory than its budget") != 1 {
			t.Errorf("above the budget: pressure %g, log:\n%s", g.Pressure(), &out)
		}

		f.write("proc/self/statm", "9999 100 1 1 0 1 0\n")
		f.write("proc/pressure/cpu", psi("0.00", "0.00"))
		waitLooks(fallAfter + 1)
		if g.Pressure() != 0 || !strings.Contains(out.String(), "within the budget again") {
			t.Errorf("at rest again: pressure %g, log:\n%s", g.Pressure(), &out)
		}
		cancel()
		g.Wait()
	})
	families, err := reg.Gather()
	if err != nil || len(families) != 3 {
		t.Errorf("%d metrics, %v", len(families), err)
	}
}

// waitLooks lets the time of some looks pass.
func waitLooks(n int) {
	timer := time.NewTimer(time.Duration(n)*readEvery + time.Second)
	<-timer.C
	synctest.Wait()
}

func TestTheRealHostIsRead(t *testing.T) {
	keepRuntime(t)
	ctx, cancel := context.WithCancel(t.Context())
	g := Start(ctx, Config{IgnorePressure: true}, hclog.NewNullLogger(), nil)
	if s := g.Status(); s.Resident < 1<<20 || s.Budget > DefaultMemory || s.Stalled != nil {
		t.Errorf("%+v", s)
	}
	if runtime.GOMAXPROCS(0) > 1 {
		t.Errorf("%d processors", runtime.GOMAXPROCS(0))
	}
	cancel()
	g.Wait()
}

func TestAllThreadsStepBack(t *testing.T) {
	if err := stepBack("/proc", 7); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = stepBack("/proc", 0) }()
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range threads {
		id, err := strconv.Atoi(x.Name())
		if err != nil {
			t.Fatal(err)
		}
		if p, err := unix.Getpriority(unix.PRIO_PROCESS, id); err == nil && 20-p != 7 { // the system call gives 20 - nice
			t.Errorf("thread %d has niceness %d", id, 20-p)
		}
	}
}

func TestAllThreadsMayBeWokenLate(t *testing.T) {
	f := newFakeHost(t)
	f.write("proc/self/task/17/comm", "")
	f.write("proc/self/task/19/comm", "")
	f.write("proc/17/timerslack_ns", "50000") // 19 has ended meanwhile
	if err := beLax(f.host().proc, time.Millisecond); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join(f.host().proc, "17", "timerslack_ns")); err != nil || string(b) != "1000000" {
		t.Errorf("%q, %v", b, err)
	}
	if os.Geteuid() != 0 {
		return // the rest takes CAP_SYS_NICE
	}
	defer func() { _ = beLax("/proc", 50*time.Microsecond) }()
	if err := beLax("/proc", 70*time.Microsecond); err != nil {
		t.Fatal(err)
	}
	ids, err := threads("/proc")
	if err != nil || len(ids) == 0 {
		t.Fatal(ids, err)
	}
	for _, id := range ids {
		b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(id), "timerslack_ns"))
		if got := strings.TrimSpace(string(b)); err == nil && got != "70000" {
			t.Errorf("thread %d may be woken %s ns late", id, got)
		}
	}
}

func TestTheDoctorNamesWhatIsShort(t *testing.T) {
	f := newFakeHost(t)
	f.write("proc/self/cgroup", "0::/x\n")
	for limit, want := range map[string]string{"max": "ok", "200000000": "ok", "100000000": "note", "20000000": "warn"} {
		f.write("cgroup/x/memory.max", limit+"\n")
		if got := memoryFinding(Config{}, f.host()); string(got.Level) != want || got.Detail == "" || (want != "ok") != (got.Mend != "") {
			t.Errorf("limit %s: %+v", limit, got)
		}
	}
	f.write("cgroup/x/memory.max", "max\n")
	if got := memoryFinding(Config{Memory: 1 << 20}, f.host()); got.Level != "warn" {
		t.Errorf("%+v", got)
	}
	if got := pressureFinding(Config{}, f.host()); got.Level != "note" || got.Mend == "" {
		t.Errorf("without PSI: %+v", got)
	}
	for cpu, want := range map[string]string{"10.00": "ok", "90.00": "note"} {
		f.write("proc/pressure/cpu", psi(cpu, "0.00"))
		if got := doctor(Config{}, f.host())[1]; string(got.Level) != want {
			t.Errorf("cpu %s: %+v", cpu, got)
		}
	}
	if got := pressureFinding(Config{IgnorePressure: true}, f.host()); got.Level != "note" {
		t.Errorf("%+v", got)
	}
}
