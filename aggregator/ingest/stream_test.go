package ingest_test

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf8"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"pgregory.net/rapid"

	"github.com/theazo/observability/aggregator/ingest"
	"github.com/theazo/observability/aggregator/ingest/ingesttest"
	"github.com/theazo/observability/shared/frame"
	"github.com/theazo/observability/shared/segment"
	"github.com/theazo/observability/shared/telemetry"
	"github.com/theazo/observability/shared/wire"
)

func TestFramesAreAcknowledgedAfterTheirCommit(t *testing.T) {
	b := start(t, nil, "org_a")
	var committed atomic.Uint64
	b.store.After(func(frames []*frame.Received) error {
		for _, f := range frames {
			committed.Store(f.Last())
		}
		return nil
	})
	n := b.enrol(t, "org_a")
	s := b.open(t, n)
	for i := range uint64(100) {
		s.send(logs("", 7, i+1, "line "+strconv.FormatUint(i, 10)))
	}
	for last := uint64(0); last < 100; {
		a := s.next().GetAck()
		if a == nil || a.GetLast() <= last || a.GetLast() > committed.Load() || a.GetEpoch() != 7 || a.GetLane() != wire.Lane_LANE_LOGS {
			t.Fatalf("after %d came %v, committed is %d", last, a, committed.Load())
		}
		last = a.GetLast()
	}
	messages, err := b.store.Messages("org_a")
	if err != nil || len(messages) != 100 {
		t.Fatalf("%d lines: %v", len(messages), err)
	}
	for i, m := range messages {
		if m != "line "+strconv.Itoa(i) {
			t.Fatalf("line %d is %q", i, m)
		}
	}
	for _, f := range b.store.Committed() {
		if f.Node != n.id || f.ReceivedAt.IsZero() || f.ReceivedAt.Location() != time.UTC {
			t.Fatalf("%s of node %s at %s", &f.Header, f.Node, f.ReceivedAt)
		}
	}
}

func TestRepeatsAreAcknowledgedAndStoredOnce(t *testing.T) {
	b := start(t, nil, "org_a")
	n := b.enrol(t, "org_a")
	s, second := b.open(t, n), b.open(t, n) // the node has come back before we saw it go
	for range 3 {
		for i := range uint64(10) {
			s.send(logs("", 7, i+1, "x"))
			second.send(logs("org_a", 7, i+1, "x"))
		}
	}
	s.acked("", 7, 10)
	second.acked("org_a", 7, 10) // as spelled in the frames of that stream
	if n := len(b.store.Committed()); n != 10 {
		t.Fatalf("%d frames are stored", n)
	}
}

func TestAMissingFrameIsAskedForOnce(t *testing.T) {
	b := start(t, nil, "org_a")
	s := b.open(t, b.enrol(t, "org_a"))
	for _, first := range []uint64{1, 2, 4, 5, 6} {
		s.send(logs("", 7, first, "x"))
	}
	for {
		if r := s.next().GetRewind(); r != nil {
			if r.GetNext() != 3 || r.GetEpoch() != 7 {
				t.Fatalf("asked for %v", r)
			}
			break
		}
	}
	for first := uint64(3); first <= 8; first++ {
		s.send(logs("", 7, first, "x"))
	}
	s.acked("", 7, 8)
	if n := len(b.store.Committed()); n != 8 {
		t.Fatalf("%d frames are stored", n)
	}
}

func TestLanesAndEnvironmentsKeepApart(t *testing.T) {
	b := start(t, nil, "org_a")
	s := b.open(t, b.enrol(t, ""))
	body, err := wire.EncodeRecords(&telemetry.Records{
		Events: []telemetry.Event{{Type: telemetry.SandboxStarted, Timestamp: time.Now(), Origin: telemetry.Origin{Agent: "agt_1", Sandbox: "c1"}}},
		Gaps:   []telemetry.Gap{{Reason: telemetry.GapRotated, Count: telemetry.GapUnknownCount}},
	})
	if err != nil {
		t.Fatal(err)
	}
	s.send(&wire.Frame{Organisation: "org_a", Lane: wire.Lane_LANE_EVENTS, Class: wire.Class_CLASS_IMPORTANT, Epoch: 1, First: 1, Count: 2, Body: body})
	s.acked("org_a", 1, 2)
	test := logs("org_a", 1, 1, "of a test")
	test.Test = true
	s.send(test)
	s.acked("org_a", 1, 1)
	got := b.store.Committed()
	if len(got) != 2 || len(got[0].Events) != 1 || len(got[0].Gaps) != 1 || got[0].Env != telemetry.Live || got[1].Env != telemetry.Test {
		t.Fatalf("%+v", got)
	}
}

func TestOneOrganisationsQuotaDelaysNoOther(t *testing.T) {
	b := start(t, func(c *ingest.Config) { c.Quota = telemetry.Quota{RecordsPerSecond: 10} }, "org_loud", "org_quiet")
	n := b.enrol(t, "")
	s := b.open(t, n)
	for i := range uint64(50) {
		s.send(logs("org_loud", 1, 1+i*100, slices.Repeat([]string{"x"}, 100)...))
	}
	s.send(logs("org_quiet", 1, 1, "hello"))
	for throttled, served := false, false; !throttled || !served; {
		r := s.next()
		if w := r.GetThrottle(); w != nil {
			if w.GetOrganisation() != "org_loud" || w.GetRetryAfter().AsDuration() <= 0 || w.GetReason() == "" {
				t.Fatalf("%v", r)
			}
			throttled = true
		}
		served = served || r.GetAck().GetOrganisation() == "org_quiet"
	}
	if b.store.Marks()[ingesttest.Stream{Org: "org_loud", Node: n.id, Epoch: 1, Lane: telemetry.LaneLogs}] == 5000 {
		t.Fatal("org_loud was not held back")
	}
}

// An organisation's own quota goes before the common one, also while it sends.
func TestAnOrganisationCanHaveAQuotaOfItsOwn(t *testing.T) {
	b := start(t, func(c *ingest.Config) { c.QuotasEvery = time.Millisecond }, "org_small")
	s := b.open(t, b.enrol(t, "org_small"))
	s.send(logs("", 1, 1, "x"))
	s.acked("", 1, 1)
	b.store.SetQuota("org_small", telemetry.Quota{RecordsPerSecond: 1})
	seq := uint64(2)
	for throttled := false; !throttled; seq++ {
		s.send(logs("", 1, seq, "x"))
		for acked := false; !acked && !throttled; {
			r := s.next()
			throttled, acked = r.GetThrottle() != nil, r.GetAck().GetLast() == seq
		}
	}
}

// A few bytes can take as much to decode as megabytes: that is rationed, too.
func TestDecodingIsRationed(t *testing.T) {
	b := start(t, nil, "org_a")
	s := b.open(t, b.enrol(t, ""))
	const most = 1000
	for i := range uint64(most) {
		rubbish := logs("org_a", 1, 1+i, "x")
		rubbish.Body = rubbish.GetBody()[1:]
		s.send(rubbish)
	}
	for throttled := false; !throttled; {
		r := s.next()
		if r.GetAck().GetLast() == most {
			t.Fatalf("%d frames that may have been anything were looked at without a pause", most)
		}
		throttled = r.GetThrottle().GetOrganisation() == "org_a"
	}
}

func TestUnknownOrganisationsWait(t *testing.T) {
	b := start(t, nil, "org_a")
	s := b.open(t, b.enrol(t, ""))
	s.send(logs("org_none", 1, 1, "x"))
	s.send(logs("", 1, 1, "x"))
	s.send(logs("org_a", 1, 1, "x"))
	waiting := map[string]bool{}
	for acked := false; !acked || len(waiting) < 2; {
		r := s.next()
		if t := r.GetThrottle(); t != nil {
			waiting[t.GetOrganisation()] = true
		}
		acked = acked || r.GetAck() != nil
	}
	if !waiting["org_none"] || !waiting[""] || len(b.store.Committed()) != 1 {
		t.Fatalf("%v wait, %d are stored", waiting, len(b.store.Committed()))
	}
}

func TestAForeignOrganisationEndsTheStream(t *testing.T) {
	b := start(t, nil, "org_a", "org_b")
	n := b.enrol(t, "org_a")
	rapid.Check(t, func(rt *rapid.T) {
		org := rapid.OneOf(
			rapid.Just("org_b"), rapid.StringMatching(`[A-Za-z0-9_.:-]{1,128}`), rapid.String(), rapid.StringMatching(`org_a[\x00-\x7f]`),
		).Filter(func(s string) bool { return s != "" && s != "org_a" && len(s) < 1<<16 }).Draw(rt, "organisation")
		s := b.open(t, n)
		f := logs(org, 1, 1, "x")
		if err := s.Send(&wire.StreamRequest{Message: &wire.StreamRequest_Frame{Frame: f}}); err != nil {
			if status.Code(err) != codes.Internal || utf8.ValidString(org) {
				rt.Fatal(err)
			}
			return // protobuf itself refuses text that is not UTF-8
		}
		_ = s.CloseSend() // where the frame is taken, the stream ends without an error
		switch code := status.Code(s.end()); code {
		case codes.PermissionDenied, codes.InvalidArgument:
		default:
			rt.Fatalf("%q ended the stream with %v", org, code)
		}
	})
	if got := b.store.Committed(); len(got) != 0 {
		t.Fatalf("stored: %s", &got[0].Header)
	}
	if b.metric(t, "refused_total", "foreign_organisation") == 0 {
		t.Fatal("nothing was counted")
	}
}

func TestBrokenHeadersEndTheStream(t *testing.T) {
	b := start(t, nil, "org_a")
	n := b.enrol(t, "org_a")
	for name, change := range map[string]func(*wire.Frame){
		"no lane":        func(f *wire.Frame) { f.Lane = 0 },
		"unknown lane":   func(f *wire.Frame) { f.Lane = 9 },
		"unknown class":  func(f *wire.Frame) { f.Class = 9 },
		"no epoch":       func(f *wire.Frame) { f.Epoch = 0 },
		"no sequence":    func(f *wire.Frame) { f.First = 0 },
		"sequence bound": func(f *wire.Frame) { f.First = 1 << 40 },
		"no records":     func(f *wire.Frame) { f.Count = 0 },
		"huge count":     func(f *wire.Frame) { f.Count = 1 << 31 },
		"large body":     func(f *wire.Frame) { f.Body = make([]byte, frame.MaxBody+1) },
	} {
		s := b.open(t, n)
		f := logs("", 1, 1, "x")
		change(f)
		s.send(f)
		if code := status.Code(s.end()); code != codes.InvalidArgument {
			t.Errorf("%s: the stream ended with %v", name, code)
		}
	}
	s := b.open(t, n)
	f := logs("", 1, 1, "x")
	f.Body = make([]byte, 5<<20)
	s.send(f)
	if code := status.Code(s.end()); code != codes.ResourceExhausted {
		t.Errorf("a message of 5 MiB: the stream ended with %v", code)
	}
	if len(b.store.Committed()) != 0 {
		t.Fatal("something was stored")
	}
}

func TestTheFirstMessageIsHello(t *testing.T) {
	b := start(t, nil, "org_a")
	s, err := b.client(t, b.enrol(t, "org_a").tls()).Stream(deadline(t))
	if err != nil {
		t.Fatal(err)
	}
	_ = s.Send(&wire.StreamRequest{Message: &wire.StreamRequest_Frame{Frame: logs("", 1, 1, "x")}})
	if _, err := s.Recv(); status.Code(err) != codes.InvalidArgument {
		t.Fatal(err)
	}
	empty, err := b.client(t, b.enrol(t, "org_a").tls()).Stream(deadline(t))
	if err != nil {
		t.Fatal(err)
	}
	_ = empty.CloseSend()
	if _, err := empty.Recv(); status.Code(err) != codes.InvalidArgument {
		t.Fatal(err)
	}
}

func TestStreamsPerNodeAreBounded(t *testing.T) {
	b := start(t, nil, "org_a")
	n := b.enrol(t, "org_a")
	for range 8 {
		b.open(t, n)
	}
	if _, err := b.tryOpen(t, n.tls()); status.Code(err) != codes.ResourceExhausted {
		t.Fatalf("the ninth stream: %v", err)
	}
	b.open(t, b.enrol(t, "org_a"))
}

func TestFramesThatCannotBeReadDelayNothing(t *testing.T) {
	b := start(t, nil, "org_a")
	s := b.open(t, b.enrol(t, "org_a"))
	foreign := segmentOf(t, telemetry.LogEntry{Message: "x", Origin: telemetry.Origin{Agent: "a b"}})
	broken := map[string]*wire.Frame{
		"no segment":     {Body: []byte("x"), Count: 1},
		"no body":        {Count: 1},
		"bad agent id":   {Body: foreign, Count: 1},
		"other count":    {Body: ingesttest.Segment("a", "b"), Count: 3},
		"early year":     {Body: segmentOf(t, telemetry.LogEntry{Timestamp: time.Date(-3000, 1, 1, 0, 0, 0, 0, time.UTC), Origin: telemetry.Origin{Agent: "a"}}), Count: 1},
		"list":           {Body: metadata(t, `[1]`), Count: 1},
		"line of SSE":    {Body: metadata(t, "{\n\"a\":1}"), Count: 1},
		"half an object": {Body: metadata(t, `{"a":`), Count: 1},
		"two objects":    {Body: metadata(t, `{}{}`), Count: 1},
		"deep":           {Body: metadata(t, strings.Repeat(`{"a":`, 100)+"1"+strings.Repeat("}", 100)), Count: 1},
		"no UTF-8":       {Body: metadata(t, "{\"a\":\"\xff\"}"), Count: 1},
		"bad trace":      {Body: segmentOf(t, telemetry.LogEntry{Trace: "\x00", Origin: telemetry.Origin{Agent: "a"}}), Count: 1},
		"long message":   {Body: segmentOf(t, telemetry.LogEntry{Message: strings.Repeat("x", telemetry.MaxMessage+1), Origin: telemetry.Origin{Agent: "a"}}), Count: 1},
		"events":         {Lane: wire.Lane_LANE_EVENTS, Body: []byte{0xff}, Count: 1},
		"other events":   {Lane: wire.Lane_LANE_EVENTS, Count: 5},
		"tombstone":      {Tombstone: true, Body: []byte{0xff}, Count: 1 << 31},
		"empty stone":    {Tombstone: true, Count: 1 << 31},
	}
	for name, f := range broken {
		epoch := uint64(1)
		for k := range broken { // one epoch each
			if k < name {
				epoch++
			}
		}
		f.Class, f.Epoch, f.First = wire.Class_CLASS_NORMAL, epoch, 1
		f.Lane = max(f.GetLane(), wire.Lane_LANE_LOGS)
		s.send(f)
		good := logs("", epoch, 1+uint64(f.GetCount()), "behind "+name)
		good.Lane = wire.Lane_LANE_LOGS
		if f.GetLane() == wire.Lane_LANE_EVENTS {
			good.First = 1
		}
		s.send(good)
	}
	eventually(t, "all are stored", func() bool { return len(b.store.Committed()) == 2*len(broken) })
	quarantined := 0
	for _, f := range b.store.Committed() {
		if f.Quarantine == "" {
			continue
		}
		quarantined++
		if f.Segment != nil || f.Events != nil || f.Gaps != nil {
			t.Errorf("%s: decoded and in quarantine (%s)", &f.Header, f.Quarantine)
		}
	}
	messages, err := b.store.Messages("org_a")
	if err != nil || quarantined != len(broken) || len(messages) != len(broken) {
		t.Fatalf("%d of %d in quarantine, %d lines behind them: %v", quarantined, len(broken), len(messages), err)
	}
}

func segmentOf(t *testing.T, e telemetry.LogEntry) []byte {
	t.Helper()
	if e.Timestamp.IsZero() {
		e.Timestamp = time.Now()
	}
	var w segment.Writer
	w.Append(&e)
	return w.Encode(nil)
}

func metadata(t *testing.T, text string) []byte {
	t.Helper()
	return segmentOf(t, telemetry.LogEntry{Message: "m", Metadata: []byte(text), Origin: telemetry.Origin{Agent: "a"}})
}

func TestDataThatTheStoreRefusesIsPutApart(t *testing.T) {
	b := start(t, func(c *ingest.Config) { c.CommitEvery = 100 * time.Millisecond }, "org_a", "org_b")
	poison := func(f *frame.Received) bool {
		if f.Segment == nil {
			return false
		}
		l := f.Segment.Read()
		return l.Decode(segment.Message) == nil && strings.HasPrefix(string(l.Message(0)), "poison")
	}
	b.store.Before(func(frames []*frame.Received) error {
		if slices.ContainsFunc(frames, poison) {
			return &telemetry.Failure{Code: telemetry.Unprocessable, Message: "22021"}
		}
		return nil
	})
	s := b.open(t, b.enrol(t, ""))
	for i := range uint64(64) {
		text := "good"
		if i%20 == 7 {
			text = "poison"
		}
		s.send(logs("org_a", 1, i+1, text))
		s.send(logs("org_b", 1, i+1, "good"))
	}
	eventually(t, "all are stored", func() bool { return len(b.store.Committed()) == 128 })
	apart := 0
	for _, f := range b.store.Committed() {
		if f.Quarantine != "" {
			apart++
		}
	}
	if apart != 3 {
		t.Fatalf("%d frames are in quarantine, 3 are poison", apart)
	}
}

func TestAnUnknownFaultStopsOneOrganisationOnly(t *testing.T) {
	b := start(t, func(c *ingest.Config) { c.Workers = 1 }, "org_a", "org_b")
	var broken atomic.Bool
	broken.Store(true)
	b.store.Before(func(frames []*frame.Received) error {
		for _, f := range frames {
			if f.Org == "org_a" && broken.Load() {
				return errors.New("a fault of ours")
			}
		}
		return nil
	})
	s := b.open(t, b.enrol(t, ""))
	s.send(logs("org_a", 1, 1, "x"))
	s.send(logs("org_b", 1, 1, "x"))
	// The two frames may have met in one transaction or not: either answer may be first.
	for acked, throttled := false, false; !acked || !throttled; {
		r := s.next()
		acked = acked || r.GetAck().GetOrganisation() == "org_b"
		throttled = throttled || r.GetThrottle().GetOrganisation() == "org_a"
	}
	broken.Store(false)
	s.send(logs("org_a", 1, 1, "x"))
	s.acked("org_a", 1, 1)
}

func TestAnAbsentStoreIsWaitedForWithinBounds(t *testing.T) {
	b := start(t, func(c *ingest.Config) { c.OrgMemory, c.Memory = 256<<10, 512<<10 }, "org_a", "org_b", "org_c")
	var away atomic.Bool
	away.Store(true)
	b.store.Before(func([]*frame.Received) error {
		if away.Load() {
			return telemetry.Failf(telemetry.Unavailable, "The database is away.")
		}
		return nil
	})
	s := b.open(t, b.enrol(t, ""))
	big := strings.Repeat("x", 100)
	waiting := map[string]string{}
	for i := range uint64(200) {
		for _, org := range []string{"org_a", "org_b", "org_c"} {
			s.send(logs(org, 1, 1+i, fmt.Sprint(i, big)))
		}
	}
	for len(waiting) < 3 {
		throttle := s.next().GetThrottle()
		if throttle == nil {
			t.Fatal("something was acknowledged")
		}
		waiting[throttle.GetOrganisation()] = throttle.GetReason()
	}
	if held := b.metric(t, "queued_bytes", ""); held > 512<<10 {
		t.Fatalf("%.0f bytes are held", held)
	}
	away.Store(false)
	for _, org := range []telemetry.OrgID{"org_a", "org_b", "org_c"} {
		eventually(t, "what was taken is stored", func() bool {
			list, err := b.store.Messages(org)
			return err == nil && len(list) > 10
		})
	}
	eventually(t, "memory is given back", func() bool { return b.metric(t, "queued_bytes", "") == 0 })
}

// Frames of the events lane are held decoded: what that takes is counted.
func TestDecodedRecordsCountAsMemory(t *testing.T) {
	b := start(t, func(c *ingest.Config) { c.OrgMemory = 24 << 20 }, "org_a")
	b.store.Before(func([]*frame.Received) error { return telemetry.Failf(telemetry.Unavailable, "The database is away.") })
	at := time.Now().UTC().Truncate(time.Microsecond)
	events := slices.Repeat([]telemetry.Event{{Type: "x", Timestamp: at, Origin: telemetry.Origin{Agent: "a"}}}, frame.MaxCount)
	body, err := wire.EncodeRecords(&telemetry.Records{Events: events})
	if err != nil {
		t.Fatal(err)
	}
	s := b.open(t, b.enrol(t, "org_a"))
	const sent = 5
	if sent*len(body) > 4<<20 {
		t.Fatalf("the frames take %d bytes as they come", sent*len(body))
	}
	for i := range uint64(sent) {
		s.send(&wire.Frame{
			Lane: wire.Lane_LANE_EVENTS, Class: wire.Class_CLASS_IMPORTANT, Epoch: 1, First: 1 + i*frame.MaxCount, Count: frame.MaxCount, Body: body,
		})
	}
	if throttle := s.next().GetThrottle(); throttle == nil {
		t.Fatal("something was acknowledged")
	}
	b.store.Before(nil)
	eventually(t, "what was taken is stored", func() bool { return b.store.Commits() > 0 })
	eventually(t, "memory is given back", func() bool { return b.metric(t, "queued_bytes", "") == 0 })
}

func TestStoppingCommitsAndAcknowledgesWhatWasTaken(t *testing.T) {
	b := start(t, nil, "org_a")
	held := make(chan struct{})
	reached := make(chan struct{}, 100)
	b.store.Before(func([]*frame.Received) error {
		reached <- struct{}{}
		<-held
		return nil
	})
	s := b.open(t, b.enrol(t, "org_a"))
	s.send(logs("", 1, 1, "x"))
	<-reached
	for i := range uint64(5) {
		s.send(logs("", 1, i+2, "x"))
	}
	eventually(t, "all are taken", func() bool { return b.metric(t, "queued_bytes", "") > 6*1024 })
	var group sync.WaitGroup
	group.Go(func() {
		if err := b.stop(); err != nil {
			t.Error(err)
		}
	})
	close(held)
	last := uint64(0)
	for {
		r, err := s.Recv()
		if err != nil {
			if status.Code(err) != codes.Unavailable {
				t.Errorf("the stream ended with %v", err)
			}
			break
		}
		last = max(last, r.GetAck().GetLast())
	}
	group.Wait()
	if last != 6 || len(b.store.Committed()) != 6 {
		t.Fatalf("acknowledged up to %d, %d stored", last, len(b.store.Committed()))
	}
}

func TestStoppingIsBounded(t *testing.T) {
	b := start(t, func(c *ingest.Config) { c.StopTimeout = 100 * time.Millisecond }, "org_a")
	b.store.Before(func([]*frame.Received) error { return telemetry.Failf(telemetry.Unavailable, "The database is away.") })
	s := b.open(t, b.enrol(t, "org_a"))
	s.send(logs("", 1, 1, "x"))
	eventually(t, "it is taken", func() bool { return b.metric(t, "queued_bytes", "") > 0 })
	if err := b.stop(); err == nil {
		t.Fatal("nothing says that a frame was not committed")
	}
	if len(b.store.Committed()) != 0 {
		t.Fatal("stored")
	}
}

func TestAnEndedNodeHearsOfItsLastFrames(t *testing.T) {
	b := start(t, nil, "org_a")
	s := b.open(t, b.enrol(t, "org_a"))
	for i := range uint64(10) {
		s.send(logs("", 1, i+1, "x"))
	}
	if err := s.CloseSend(); err != nil {
		t.Fatal(err)
	}
	s.acked("", 1, 10)
	if err := s.end(); status.Code(err) != codes.OK && status.Code(err) != codes.Unknown {
		t.Fatal(err)
	}
}

func TestInventedEpochsAreBounded(t *testing.T) {
	b := start(t, func(c *ingest.Config) { c.Quota.RecordsPerSecond = 1 }, "org_a")
	s := b.open(t, b.enrol(t, "org_a"))
	body := ingesttest.Segment("x")
	go func() {
		for i := range uint64(30_000) {
			f := &wire.Frame{Lane: wire.Lane_LANE_LOGS, Class: wire.Class_CLASS_NORMAL, Epoch: i + 1, First: 1, Count: 1, Body: body}
			if s.Send(&wire.StreamRequest{Message: &wire.StreamRequest_Frame{Frame: f}}) != nil {
				return
			}
		}
		_ = s.CloseSend()
	}()
	if err := s.end(); status.Code(err) != codes.ResourceExhausted {
		t.Fatalf("the stream ended with %v", err)
	}
}
