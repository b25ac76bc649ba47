package agentd

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"

	"github.com/theazo/observability/agentd/spool"
	"github.com/theazo/observability/agentd/uplink"
	"github.com/theazo/observability/shared/config"
	"github.com/theazo/observability/shared/health"
	"github.com/theazo/observability/shared/telemetry"
	"github.com/theazo/observability/shared/wire"
)

// examine runs the doctor on a command line, without any Docker engine.
func examine(t *testing.T, args ...string) []health.Finding {
	t.Helper()
	l, _, err := NewLoader("doctor", append([]string{"-docker.enabled=false"}, args...), nil)
	if err != nil {
		t.Fatal(err)
	}
	findings, err := l.Doctor(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return findings
}

// wantFinding checks that a check found something of a level that has a text.
func wantFinding(t *testing.T, findings []health.Finding, level health.Level, check, text string) {
	t.Helper()
	var seen []string
	for _, f := range findings {
		if f.Check != check {
			continue
		}
		if f.Level == level && strings.Contains(f.Detail+" "+f.Mend, text) {
			return
		}
		seen = append(seen, fmt.Sprintf("%+v", f))
	}
	t.Errorf("no %s of %q with %q, but %s", level, check, text, seen)
}

// writeIdentity writes what a node of that lifetime has.
func writeIdentity(t *testing.T, dir string, from, until time.Time) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	authority := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotBefore: from.Add(-time.Hour), NotAfter: until.Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	node := telemetry.NodeIdentity{ID: "nod_1", Org: "org_1"}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: wire.NodeSubject(node, 1), URIs: []*url.URL{wire.NodeURI(node)}, NotBefore: from, NotAfter: until,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})
	for _, c := range []struct {
		kind     string
		template *x509.Certificate
	}{{"CERTIFICATE", leaf}, {"TRUSTED CERTIFICATE", authority}} {
		der, err := x509.CreateCertificate(rand.Reader, c.template, authority, &key.PublicKey, key)
		if err != nil {
			t.Fatal(err)
		}
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: c.kind, Bytes: der})...)
	}
	if err := os.WriteFile(filepath.Join(dir, "identity.pem"), text, 0o600); err != nil {
		t.Fatal(err)
	}
}

func privateDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestTheDoctorOfAFreshHost(t *testing.T) {
	dir := privateDir(t)
	f := examine(t, "-state_dir", dir, "-aggregator.addresses", "127.0.0.1:1,nonsense", "-files", "/nowhere/*.log", "-redact.enabled=false")
	wantFinding(t, f, health.Fail, "configuration", `"nonsense" is not host:port`)
	wantFinding(t, f, health.Note, "agentd", "None runs")
	wantFinding(t, f, health.OK, "state directory", dir)
	wantFinding(t, f, health.Fail, "certificate", "there is no join token")
	wantFinding(t, f, health.Fail, "aggregator", "127.0.0.1:1: connection fails")
	wantFinding(t, f, health.Note, "log files", "names no file")
	wantFinding(t, f, health.Warn, "redaction", "switched off")
	wantFinding(t, f, health.OK, "disk speed", "64 KiB")
	if !Failed(f) {
		t.Error("a host that cannot send is well")
	}
	if left, err := filepath.Glob(filepath.Join(dir, "*")); err != nil || len(left) > 0 {
		t.Errorf("the doctor left %q (%v)", left, err)
	}
	for _, c := range []struct{ token, enrolment, text string }{
		{"thj_x", "127.0.0.1:1", "not a join token"}, {"thj_x", "", "Set aggregator.enrolment"},
	} {
		f := examine(t, "-state_dir", dir, "-aggregator.addresses", "127.0.0.1:1", "-aggregator.join_token", c.token, "-aggregator.enrolment", c.enrolment)
		wantFinding(t, f, health.Fail, "certificate", c.text)
	}
}

func TestTheDoctorReadsTheCertificate(t *testing.T) {
	now := time.Now()
	for _, c := range []struct {
		from, until time.Duration
		level       health.Level
		check, text string
	}{
		{-time.Hour, 23 * time.Hour, health.OK, "certificate", "nod_1 of org_1"},
		{-22 * time.Hour, 2 * time.Hour, health.Warn, "certificate", "should have been renewed"},
		{-25 * time.Hour, -time.Hour, health.Fail, "certificate", "Enrol again"},
		{time.Hour, 25 * time.Hour, health.Fail, "clock", "before this node's certificate"},
	} {
		dir := privateDir(t)
		writeIdentity(t, dir, now.Add(c.from), now.Add(c.until))
		f := examine(t, "-state_dir", dir, "-aggregator.addresses", "127.0.0.1:1")
		wantFinding(t, f, c.level, c.check, c.text)
	}
	dir := privateDir(t)
	if err := os.WriteFile(filepath.Join(dir, "identity.pem"), []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	wantFinding(t, examine(t, "-state_dir", dir, "-aggregator.addresses", "127.0.0.1:1"), health.Fail, "certificate", "enrol again")
}

func TestTheDoctorAsksTheRunningAgent(t *testing.T) {
	dir := privateDir(t)
	s := Status{Version: "v9", NodeName: "host", StartedAt: time.Now(), Buffer: spool.Stats{Corrupt: 3, Budget: 1 << 30}}
	s.Buffer.Evicted[1][0] = spool.Loss{Frames: 1, Records: 44}
	s.Uplink = uplink.Status{Connected: true, ClockSkew: 9 * time.Second, Throttled: []uplink.Throttled{{Organisation: "org_2", Reason: "too much"}}}
	s.Buffer.Lane[1] = spool.LaneStats{Frames: 7, Bytes: 5 << 20, Oldest: time.Now().Add(-time.Hour)}
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	group.Go(func() {
		if err := serveStatus(ctx, dir, prometheus.NewRegistry(), func() Status { return s }); err != nil {
			t.Error(err)
		}
	})
	defer group.Wait()
	defer cancel()
	for limit := time.Now().Add(time.Minute); time.Now().Before(limit); {
		if _, err := FetchStatus(ctx, dir, "status"); err == nil {
			break
		}
	}
	f := examine(t, "-state_dir", dir, "-aggregator.addresses", "127.0.0.1:1")
	wantFinding(t, f, health.Warn, "agentd", "in 3 places")
	wantFinding(t, f, health.Warn, "agentd", "44 records gave way")
	wantFinding(t, f, health.Warn, "agentd", fmt.Sprintf("process %d", os.Getpid()))
	wantFinding(t, f, health.Warn, "flow of lines", "5MiB wait in the buffer (of 1GiB), the oldest for 1h0m")
	wantFinding(t, f, health.Warn, "flow of lines", "holds back org_2")
	wantFinding(t, f, health.Warn, "clock", "9s off the aggregator's")
	wantFinding(t, f, health.OK, "open files", "Agentd's limit is")
}

func TestTheDoctorLooksAtTheStateDirectory(t *testing.T) {
	open := privateDir(t)
	if err := os.Chmod(open, 0o755); err != nil {
		t.Fatal(err)
	}
	wantFinding(t, examine(t, "-state_dir", open), health.Warn, "state directory", "chmod 0700")
	file := filepath.Join(privateDir(t), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	wantFinding(t, examine(t, "-state_dir", file), health.Fail, "state directory", "no directory")
	missing := filepath.Join(privateDir(t), "a", "b")
	wantFinding(t, examine(t, "-state_dir", missing), health.Note, "state directory", "the first start makes it")
}

func TestTheDoctorJudgesDisks(t *testing.T) {
	for text, c := range map[string]struct {
		level health.Level
		check string
		st    unix.Statfs_t
	}{
		"nothing more is buffered": {health.Fail, "disk space", unix.Statfs_t{Bsize: 4096, Blocks: 1 << 20, Bavail: 100}},
		"an outage is survived":    {health.Warn, "disk space", unix.Statfs_t{Bsize: 4096, Blocks: 1 << 20, Bavail: 200 << 10}},
		"the buffer has 0B":        {health.OK, "disk space", unix.Statfs_t{Bsize: 4096, Blocks: 1 << 24, Bavail: 1 << 23}},
		"12 inodes":                {health.Warn, "disk space", unix.Statfs_t{Bsize: 4096, Blocks: 1 << 24, Bavail: 1 << 23, Files: 1000, Ffree: 12}},
		"is memory":                {health.Warn, "file system", unix.Statfs_t{Type: unix.TMPFS_MAGIC}},
		"belongs to a container":   {health.Warn, "file system", unix.Statfs_t{Type: unix.OVERLAYFS_SUPER_MAGIC}},
		"is not this machine's":    {health.Warn, "file system", unix.Statfs_t{Type: unix.NFS_SUPER_MAGIC}},
		"mounted read-only":        {health.Fail, "file system", unix.Statfs_t{Type: unix.EXT4_SUPER_MAGIC, Flags: unix.ST_RDONLY}},
		"0x1234 below /somewhere":  {health.OK, "file system", unix.Statfs_t{Type: 0x1234}},
	} {
		cfg := Default()
		x := &examination{cfg: &cfg}
		if c.check == "disk space" {
			x.room(&c.st)
		} else {
			x.fileSystem("/somewhere", &c.st)
		}
		wantFinding(t, x.findings, c.level, c.check, text)
	}
}

// What the doctor says of the room is what the buffer will do.
func TestTheDoctorKnowsTheBuffersFloor(t *testing.T) {
	small := unix.Statfs_t{Bsize: 4096, Blocks: 64 << 20 / 4096, Bavail: 48 << 20 / 4096}
	large := unix.Statfs_t{Bsize: 4096, Blocks: 1 << 24, Bavail: 1 << 23}
	for text, c := range map[string]struct {
		floor config.Size
		level health.Level
		st    unix.Statfs_t
	}{
		"16MiB are left to others; the buffer has 0B of its 1GiB: only 32MiB more": {0, health.Warn, small},
		"20MiB are left to others": {20 << 20, health.Warn, small},
		"40GiB are left to others; the buffer has 0B of its 1GiB: nothing more": {40 << 30, health.Fail, large},
	} {
		cfg := Default()
		cfg.Buffer.Floor = c.floor
		x := &examination{cfg: &cfg}
		x.room(&c.st)
		wantFinding(t, x.findings, c.level, "disk space", text)
	}
}

func TestTheTableIsForPeople(t *testing.T) {
	findings := []health.Finding{
		{Level: health.OK, Check: "a", Detail: "well", Mend: "not said"},
		{Level: health.Warn, Check: "longer name", Detail: strings.Repeat("word ", 20), Mend: "do this"},
		{Level: health.Fail, Check: "b", Detail: "über"},
	}
	const want = `ok    a            well
warn  longer name  word word word word word word
                   word word word word word word
                   word word word word word word
                   word word
                   → do this
fail  b            über

3 checks: 1 fail, 1 warn, 0 note, 1 ok
`
	if got := Table(findings, 50, false); got != want {
		t.Errorf("%s", got)
	}
	if got := Table(findings, 50, true); !strings.Contains(got, "\x1b[31;1mfail\x1b[0m  b") {
		t.Errorf("%q", got)
	}
	if Failed(findings[:2]) {
		t.Error("a warning is no failure")
	}
	if got := megabytes(67<<30 + 5<<20); got != config.Size(67<<30).String() {
		t.Error(got)
	}
}
