package link_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/theazo/observability/agentd/uplink"
	"github.com/theazo/observability/aggregator/ingest"
	"github.com/theazo/observability/aggregator/ingest/ingesttest"
	"github.com/theazo/observability/shared/frame"
	"github.com/theazo/observability/shared/telemetry"
	"github.com/theazo/observability/shared/wire"
)

// fill puts numbered lines into a queue, in frames of uneven sizes.
func fill(q *queue, org telemetry.OrgID, epoch uint64, from, to int) {
	for n := from; n < to; {
		count := min(1+n%7, to-n)
		messages := make([]string, count)
		for i := range messages {
			messages[i] = strconv.Itoa(n + i)
		}
		q.put(org, epoch, telemetry.LaneLogs, count, ingesttest.Segment(messages...))
		n += count
	}
}

// complete fails unless the organisation's lines are the numbers up to n, each
// once and in order.
func complete(t *testing.T, b *bench, org telemetry.OrgID, n int) {
	t.Helper()
	messages, err := b.store.Messages(org)
	if err != nil {
		t.Fatal(err)
	}
	for i, m := range messages {
		if m != strconv.Itoa(i) {
			t.Fatalf("%s: line %d is %q", org, i, m)
		}
	}
	if len(messages) != n {
		t.Fatalf("%s: %d lines, %d were sent", org, len(messages), n)
	}
}

func TestNothingTwiceNothingLostWhenConnectionsBreak(t *testing.T) {
	orgs := []telemetry.OrgID{"org_a", "org_b", "org_c", "org_d"}
	b := start(t, 2, nil, append(orgs, "org_own")...)
	// Between commit and acknowledgement, on either aggregator, every few commits.
	b.store.After(func([]*frame.Received) error {
		switch rand.IntN(12) {
		case 0:
			b.relays[0].cut()
		case 1:
			b.relays[1].cut()
		case 2:
			return &telemetry.Failure{Code: telemetry.Unavailable, Message: "The answer of a commit was lost."}
		}
		return nil
	})
	platform, own := newQueue(), newQueue()
	b.connect(t, b.enrol(t, ""), platform)
	b.connect(t, b.enrol(t, "org_own"), own)
	const lines = 2000
	for at := 0; at < lines; at += 200 {
		for _, org := range orgs {
			fill(platform, org, 1, at, at+200)
		}
		fill(own, "", 1, at, at+200)
		eventually(t, "half of it is stored", func() bool { return platform.left("*")+own.left("*") < 300 })
		b.relays[rand.IntN(2)].cut()
	}
	eventually(t, "all is acknowledged", func() bool { return platform.left("*")+own.left("*") == 0 })
	for _, org := range append(orgs, "org_own") {
		complete(t, b, org, lines)
	}
}

func TestTheNextAggregatorIsTried(t *testing.T) {
	b := start(t, 2, nil, "org_a")
	b.relays[0].down.Store(true)
	q := newQueue()
	u, _ := b.connect(t, b.enrol(t, "org_a"), q)
	fill(q, "", 1, 0, 100)
	eventually(t, "all is acknowledged", func() bool { return q.left("*") == 0 })
	if s := u.Status(); !s.Connected || s.Aggregator != b.relays[1].listener.Addr().String() || s.LastAckAt.IsZero() || s.Organisation != "org_a" || s.Platform {
		t.Fatalf("%+v", s)
	}
	b.relays[1].down.Store(true)
	b.relays[0].down.Store(false)
	b.relays[1].cut()
	fill(q, "", 1, 100, 200)
	eventually(t, "all is acknowledged", func() bool { return q.left("*") == 0 })
	if s := u.Status(); s.LastError == "" || s.Aggregator != b.relays[0].listener.Addr().String() {
		t.Fatalf("%+v", s)
	}
	complete(t, b, "org_a", 200)
}

func TestAThrottledOrganisationDelaysNoOther(t *testing.T) {
	b := start(t, 1, func(c *ingest.Config) { c.Quota = telemetry.Quota{RecordsPerSecond: 50} }, "org_loud", "org_quiet")
	q := newQueue()
	u, _ := b.connect(t, b.enrol(t, ""), q)
	fill(q, "org_loud", 1, 0, 400)
	eventually(t, "the loud one waits", func() bool { return len(u.Status().Throttled) > 0 })
	if w := u.Status().Throttled[0]; w.Organisation != "org_loud" || w.Reason == "" {
		t.Fatalf("%+v", w)
	}
	fill(q, "org_quiet", 1, 0, 40)
	eventually(t, "the quiet one is served", func() bool { return q.left("org_quiet") == 0 })
	if q.left("org_loud") == 0 {
		t.Fatal("the loud one was served first")
	}
	eventually(t, "the loud one is served at its rate", func() bool { return q.left("org_loud") == 0 })
	complete(t, b, "org_loud", 400)
	complete(t, b, "org_quiet", 40)
}

func TestAnOrganisationThatIsMadeLaterIsServed(t *testing.T) {
	b := start(t, 1, nil, "org_a")
	q := newQueue()
	u, _ := b.connect(t, b.enrol(t, ""), q)
	fill(q, "org_later", 1, 0, 10)
	fill(q, "org_a", 1, 0, 10)
	eventually(t, "the known one is served", func() bool { return q.left("org_a") == 0 && len(u.Status().Throttled) == 1 })
	if q.left("org_later") == 0 {
		t.Fatal("an unknown organisation was served")
	}
}

func TestARestoredDatabaseStopsNothing(t *testing.T) {
	b := start(t, 1, nil, "org_a")
	q := newQueue()
	dir := b.enrol(t, "org_a")
	u, _ := b.connect(t, dir, q)
	fill(q, "", 9, 0, 100)
	eventually(t, "all is acknowledged", func() bool { return q.left("*") == 0 })
	k := ingesttest.Stream{Org: "org_a", Node: u.Status().Node, Epoch: 9, Lane: telemetry.LaneLogs}
	var mark uint64
	for _, f := range b.store.Committed() {
		if f.Last() < 50 {
			mark = f.Last()
		}
	}
	b.store.Forget(k, mark)
	fill(q, "", 9, 100, 200)
	eventually(t, "all is acknowledged", func() bool { return q.left("*") == 0 })
	missing := uint64(0)
	for _, f := range b.store.Committed() {
		if f.Tombstone {
			missing += uint64(f.Count)
		}
	}
	messages, err := b.store.Messages("org_a")
	if err != nil || missing != 100-mark || len(messages) != 200-int(missing) || b.store.Marks()[k] != 200 {
		t.Fatalf("%d missing, %d stored, mark %d: %v", missing, len(messages), b.store.Marks()[k], err)
	}
}

func TestEventsAndOldEpochsArrive(t *testing.T) {
	b := start(t, 1, nil, "org_a")
	q := newQueue()
	body, err := wire.EncodeRecords(&telemetry.Records{Events: []telemetry.Event{{Type: telemetry.SandboxExited, Timestamp: time.Now(), Origin: telemetry.Origin{Agent: "agt_1"}}}})
	if err != nil {
		t.Fatal(err)
	}
	for epoch := range uint64(5) {
		fill(q, "", epoch+1, 0, 20)
		q.put("", epoch+1, telemetry.LaneEvents, 1, body)
	}
	b.connect(t, b.enrol(t, "org_a"), q)
	eventually(t, "all is acknowledged", func() bool { return q.left("*") == 0 })
	if n := len(b.store.Marks()); n != 10 {
		t.Fatalf("%d marks", n)
	}
}

func TestFramesOfAFormerOrganisationStayOnTheNode(t *testing.T) {
	b := start(t, 1, nil, "org_a", "org_b")
	q := newQueue()
	fill(q, "org_b", 1, 0, 10) // from when it was a platform node
	fill(q, "", 2, 0, 10)
	b.connect(t, b.enrol(t, "org_a"), q)
	eventually(t, "its own are acknowledged", func() bool { return q.left("") == 0 })
	if messages, err := b.store.Messages("org_b"); err != nil || len(messages) != 0 || q.left("org_b") == 0 {
		t.Fatalf("%d lines of another organisation: %v", len(messages), err)
	}
	complete(t, b, "org_a", 10)
}

func TestStoppingHearsOfWhatIsCommitted(t *testing.T) {
	b := start(t, 1, func(c *ingest.Config) { c.CommitEvery = 50 * time.Millisecond }, "org_a")
	q := newQueue()
	_, stop := b.connect(t, b.enrol(t, "org_a"), q)
	fill(q, "", 1, 0, 50)
	eventually(t, "something is stored", func() bool { return b.store.Commits() > 0 })
	stop()
	stored := uint64(0)
	for _, f := range b.store.Committed() {
		stored = max(stored, f.Last())
	}
	acked := q.Acked("", 1, telemetry.LaneLogs)
	if acked != stored {
		t.Fatalf("stored up to %d, acknowledged up to %d", stored, acked)
	}
}

func TestCertificatesAreRenewedWhileLinesFlow(t *testing.T) {
	b := start(t, 2, func(c *ingest.Config) { c.NodeLife = 4 * time.Second }, "org_a")
	dir := b.enrol(t, "org_a")
	q := newQueue()
	u, _ := b.connect(t, dir, q)
	first := u.Status().CertificateExpires
	n := 0
	eventually(t, "three generations are used", func() bool {
		fill(q, "", 1, n, n+1)
		n++
		id, err := uplink.LoadIdentity(dir)
		return err == nil && id.Generation >= 4
	})
	eventually(t, "all is acknowledged", func() bool { return q.left("*") == 0 })
	if !u.Status().CertificateExpires.After(first) {
		t.Fatalf("%+v", u.Status())
	}
	complete(t, b, "org_a", n)
}

func TestARevokedNodeKeepsItsRecords(t *testing.T) {
	b := start(t, 1, nil, "org_a")
	q := newQueue()
	u, _ := b.connect(t, b.enrol(t, "org_a"), q)
	fill(q, "", 1, 0, 10)
	eventually(t, "all is acknowledged", func() bool { return q.left("*") == 0 })
	b.store.Revoke(u.Status().Node)
	eventually(t, "it is cut off and says so", func() bool {
		s := u.Status()
		return !s.Connected && s.LastError != ""
	})
	fill(q, "", 1, 10, 20)
	eventually(t, "it has tried again", func() bool { return u.Status().LastErrorAt.After(time.Now().Add(-time.Second)) })
	if q.left("*") == 0 {
		t.Fatal("a revoked node delivered")
	}
	complete(t, b, "org_a", 10)
}

func TestTheTokenGoesToItsOwnAuthorityOnly(t *testing.T) {
	own, stranger := start(t, 1, nil, "org_a"), start(t, 1, nil, "org_a")
	token := own.store.Token(own.authority.Fingerprint(), "org_a")
	dir := t.TempDir()
	c := uplink.EnrollConfig{Address: stranger.servers[0].EnrolmentAddr().String(), Token: token, StateDir: dir}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := uplink.Enroll(ctx, c); !uplink.Refused(err) || !strings.Contains(err.Error(), "the server's authority is not the one") {
		t.Fatalf("a stranger's server: %v", err)
	}
	c.Token = token[:len(token)-3]
	if _, err := uplink.Enroll(ctx, c); !uplink.Refused(err) {
		t.Fatalf("half a token: %v", err)
	}
	if _, err := uplink.LoadIdentity(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("something was written: %v", err)
	}
	c.Token, c.Address = token, own.servers[0].EnrolmentAddr().String()
	id, err := uplink.Enroll(ctx, c)
	if err != nil || id.Org != "org_a" || id.Platform || id.Generation != 1 {
		t.Fatalf("%+v %v", id, err)
	}
	c.StateDir = t.TempDir()
	if _, err := uplink.Enroll(ctx, c); !uplink.Refused(err) {
		t.Fatalf("a used token: %v", err)
	}
	c.Address = "127.0.0.1:1"
	if _, err := uplink.Enroll(ctx, c); err == nil || uplink.Refused(err) {
		t.Fatalf("nobody there: %v, which must not look final", err)
	}
}

func TestAForeignAggregatorHearsNothing(t *testing.T) {
	own, stranger := start(t, 1, nil, "org_a"), start(t, 1, nil, "org_a")
	q := newQueue()
	fill(q, "", 1, 0, 10)
	u, _ := run(t, uplink.Config{Addresses: []string{stranger.servers[0].IngestAddr().String()}, StateDir: own.enrol(t, "org_a")}, q)
	eventually(t, "it says why", func() bool { return strings.Contains(u.Status().LastError, "certificate") })
	if len(stranger.store.Committed()) != 0 || q.left("*") == 0 {
		t.Fatal("records went to another authority's aggregator")
	}
}

// BenchmarkLink measures both ends for a million lines: 600 frames of about
// 50 KiB, 1,700 lines each.
func BenchmarkLink(b *testing.B) {
	messages := make([]string, 1700)
	for i := range messages {
		messages[i] = fmt.Sprintf("%08d request %x served from cache in %d us for user %d", i, rand.Uint64(), i*7919%10_000, i*104_729%1000)
	}
	body := ingesttest.Segment(messages...)
	bench := start(b, 1, func(c *ingest.Config) { c.CommitEvery = 25 * time.Millisecond }, "org_a")
	q := newQueue()
	bench.connect(b, bench.enrol(b, "org_a"), q)
	for b.Loop() {
		for range 600 {
			q.put("", 1, telemetry.LaneLogs, len(messages), body)
		}
		eventually(b, "all is acknowledged", func() bool { return q.left("*") == 0 })
	}
	b.ReportMetric(float64(len(body)), "frame-bytes")
}
