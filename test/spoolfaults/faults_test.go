package spoolfaults

import (
	"flag"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/theazo/observability/agentd/spool"
)

var (
	kills = flag.Int("spoolfaults.kills", 30, "how often writers are killed")
	cuts  = flag.Int("spoolfaults.cuts", 12, "how often the power is cut")
)

func TestMain(m *testing.M) {
	if Main() {
		return
	}
	goleak.VerifyTestMain(m)
}

// need skips a test that cannot run here, and says why.
func need(t *testing.T, root bool, programs ...string) {
	t.Helper()
	if root && os.Getuid() != 0 {
		t.Skip("needs root, to mount file systems and cut their power")
	}
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("needs %s", p)
		}
	}
}

func report(t *testing.T, what string, s *Sweep) {
	t.Helper()
	t.Logf("FIGURE spool_%s %d", what, s.Faults)
	t.Logf("FIGURE spool_%s_lost %d", what, s.Lost)
	t.Logf("FIGURE spool_%s_duplicated %d", what, s.Twice)
	t.Logf("%d appends of %d spools, %d records gave way; at %v", s.Accepted, s.Spools, s.GaveWay, s.Points)
	for _, w := range s.Wrong {
		t.Error(w)
	}
}

func TestKills(t *testing.T) {
	need(t, false, "strace")
	k := &Killer{Dir: t.TempDir(), Lives: 8, Random: rand.New(rand.NewPCG(rand.Uint64(), 1))} //nolint:gosec // a test
	var s Sweep
	for s.Faults < *kills {
		if err := k.Spool(t.Context(), &s); err != nil {
			t.Fatal(err)
		}
	}
	report(t, "kills", &s)
	if !s.Good() {
		t.Errorf("%d lost, %d repeated", s.Lost, s.Twice)
	}
}

func TestPowerCuts(t *testing.T) {
	need(t, true, "mkfs.ext4", "mount")
	seed := rand.Uint64() //nolint:gosec // not a secret
	s, err := (&Cuts{Dir: t.TempDir(), Cuts: *cuts, Lives: 5, Seed: seed}).Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	report(t, "cuts", s)
	if !s.Good() {
		t.Errorf("%d lost, %d repeated", s.Lost, s.Twice)
	}
}

// TestPowerCutsFindAMissingFsync shows that the cuts are real.
func TestPowerCutsFindAMissingFsync(t *testing.T) {
	need(t, true, "mkfs.ext4", "mount")
	s, err := (&Cuts{Dir: t.TempDir(), Cuts: 6, Lives: 1, Seed: 1, WithoutFsync: true}).Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("of %d cuts without fsync: %d lost, %d repeated, %q", s.Faults, s.Lost, s.Twice, s.Wrong)
	if s.Good() {
		t.Error("a spool without fsync lost nothing: the cuts cut nothing")
	}
}

// TestOracleFindsFaults lets a receiver see what must not be.
func TestOracleFindsFaults(t *testing.T) {
	for name, offers := range map[string][]Offer{
		"a hole":            {{Org: orgEvents, Lane: 1, Epoch: 1, First: 2, Count: 1, Append: 2}},
		"the same twice":    {{Org: orgEvents, Lane: 1, Epoch: 1, First: 1, Count: 1, Append: 1}, {Org: orgEvents, Lane: 1, Epoch: 2, First: 1, Count: 1, Append: 1}},
		"foreign bytes":     {{Org: orgEvents, Lane: 1, Epoch: 1, First: 1, Count: 1, Append: -1}},
		"half a frame":      {{Org: orgEvents, Lane: 1, Epoch: 1, First: 1, Count: 1, Append: 1}, {Org: orgEvents, Lane: 1, Epoch: 1, First: 1, Count: 2, Append: 2}},
		"damage":            {{Org: orgEvents, Lane: 1, Epoch: 1, First: 1, Count: 1, Reason: "corrupt"}},
		"less than is gone": {},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := spool.Open(options(nil, t.TempDir()))
			if err != nil {
				t.Fatal(err)
			}
			o := NewOracle()
			for _, f := range offers {
				o.Offered(f)
			}
			if len(offers) == 0 {
				o.Accepted(1)
			}
			v, err := o.Finish(t.Context(), s)
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			if v.Good() {
				t.Errorf("found nothing wrong: %+v", v)
			}
		})
	}
}

func TestOrderOfSystemCalls(t *testing.T) {
	need(t, false, "strace")
	var all Order
	dir := filepath.Join(t.TempDir(), "spool")
	for range 5 { // of one spool: the later ones recover
		o, err := CheckOrder(t.Context(), dir)
		if err != nil {
			t.Fatal(err)
		}
		all.Merge(o)
	}
	t.Logf("FIGURE spool_order_violations %d", len(all.Violations))
	t.Logf("%d calls, %d files begun, %d copied, %d unlinked", all.Calls, all.Rotations, all.Copies, all.Unlinks)
	if all.Rotations < 10 || all.Unlinks < 3 {
		t.Error("too little happened to say anything")
	}
	for _, v := range all.Violations {
		t.Error(v)
	}
}

// TestOrderCheckerFindsFaults feeds it what must not be.
func TestOrderCheckerFindsFaults(t *testing.T) {
	const good = `7 pwrite64(5</d/spool/1.seg.tmp>, "thz"..., 64, 0) = 64
7 fsync(5</d/spool/1.seg.tmp>) = 0
7 renameat(3</d/spool>, "1.seg.tmp", 3</d/spool>, "1.seg") = 0
7 fsync(6</d/spool>) = 0
7 pwrite64(5</d/spool/1.seg>, "tzBK"..., 64, 0 <unfinished ...>
8 pwrite64(9</d/spool/cursor.1>, "thz"..., 64, 0) = 64
7 <... pwrite64 resumed>) = 64
7 fsync(5</d/spool/1.seg>) = 0
7 write(1<pipe:[1]>, "accepted 1\n", 11) = 11
8 fsync(9</d/spool/cursor.1>) = 0
8 unlinkat(3</d/spool>, "1.seg", 0) = 0
`
	if o := checkOrder(strings.NewReader(good), "spool"); len(o.Violations) != 0 || o.Rotations != 1 || o.Unlinks != 1 {
		t.Fatalf("%+v", o)
	}
	for _, without := range []string{"7 fsync(5</d/spool/1.seg.tmp>) = 0\n", "7 fsync(6</d/spool>) = 0\n", "7 fsync(5</d/spool/1.seg>) = 0\n", "8 fsync(9</d/spool/cursor.1>) = 0\n"} {
		if o := checkOrder(strings.NewReader(strings.Replace(good, without, "", 1)), "spool"); len(o.Violations) == 0 {
			t.Errorf("without %q nothing was found", without)
		}
	}
}
