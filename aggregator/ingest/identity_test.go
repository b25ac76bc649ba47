package ingest_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/status"

	"github.com/theazo/observability/aggregator/ingest"
	"github.com/theazo/observability/shared/ids"
	"github.com/theazo/observability/shared/wire"
)

func TestAuthorityIsMadeOnceAndOpenedAgain(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ca")
	var group sync.WaitGroup
	prints := make([]ids.Hash, 8)
	for i := range prints {
		group.Go(func() {
			a, err := ingest.OpenAuthority(dir)
			if err != nil {
				t.Error(err)
				return
			}
			prints[i] = a.Fingerprint()
		})
	}
	group.Wait()
	for _, p := range prints {
		if p != prints[0] {
			t.Fatal("first starts at the same time made different authorities")
		}
	}
	info, err := os.Stat(filepath.Join(dir, "ca-key.pem"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("the key's mode is %v: %v", info.Mode(), err)
	}
	left, err := filepath.Glob(filepath.Join(dir, "*.tmp"))
	if err != nil || len(left) > 0 {
		t.Fatalf("left behind: %v %v", left, err)
	}
	// A crash between key and certificate.
	if err := os.Remove(filepath.Join(dir, "ca.pem")); err != nil {
		t.Fatal(err)
	}
	if _, err := ingest.OpenAuthority(dir); err != nil {
		t.Fatalf("with a key and no certificate: %v", err)
	}
}

func TestAuthorityRefusesWhatItCannotTrust(t *testing.T) {
	fresh := func(t *testing.T) string {
		t.Helper()
		dir := t.TempDir()
		if _, err := ingest.OpenAuthority(dir); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	for name, c := range map[string]struct {
		damage func(dir string) error
		want   string
	}{
		"key is gone":     {func(dir string) error { return os.Remove(filepath.Join(dir, "ca-key.pem")) }, "put the key back"},
		"key is open":     {func(dir string) error { return os.Chmod(filepath.Join(dir, "ca-key.pem"), fs.FileMode(0o644)) }, "chmod 600"},
		"key is no PEM":   {func(dir string) error { return os.WriteFile(filepath.Join(dir, "ca-key.pem"), []byte("x"), 0o600) }, "PEM"},
		"certificate bad": {func(dir string) error { return os.WriteFile(filepath.Join(dir, "ca.pem"), []byte("x"), 0o600) }, "PEM"},
		"another's key": {func(dir string) error {
			other := fresh(t)
			return os.Rename(filepath.Join(other, "ca-key.pem"), filepath.Join(dir, "ca-key.pem"))
		}, "belong together"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := fresh(t)
			if err := c.damage(dir); err != nil {
				t.Fatal(err)
			}
			if _, err := ingest.OpenAuthority(dir); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want %q in it", err, c.want)
			}
		})
	}
}

func TestOneTokenMakesOneNode(t *testing.T) {
	b := start(t, func(c *ingest.Config) { c.EnrolPerHour = 1 << 30 }, "org_a")
	token := b.store.Token(b.authority.Fingerprint(), "org_a")
	client := b.enrolmentClient(t)
	var group sync.WaitGroup
	var joined, refused atomic.Int32
	for range 100 {
		_, csr := newCSR(t)
		group.Go(func() {
			_, err := client.Enroll(deadline(t), &wire.EnrollRequest{Token: token, Csr: csr})
			switch status.Code(err) {
			case codes.OK:
				joined.Add(1)
			case codes.Unauthenticated:
				refused.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	group.Wait()
	if joined.Load() != 1 || refused.Load() != 99 {
		t.Fatalf("%d joined, %d were refused", joined.Load(), refused.Load())
	}
}

func TestEnrolmentRefusesAndKeepsTheToken(t *testing.T) {
	b := start(t, nil, "org_a")
	client := b.enrolmentClient(t)
	token := b.store.Token(b.authority.Fingerprint(), "org_a")
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	otherCurve, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, p384)
	if err != nil {
		t.Fatal(err)
	}
	_, csr := newCSR(t)
	for name, c := range map[string]struct {
		request *wire.EnrollRequest
		code    codes.Code
	}{
		"no token":          {&wire.EnrollRequest{Csr: csr}, codes.Unauthenticated},
		"changed token":     {&wire.EnrollRequest{Token: token[:len(token)-1] + "!", Csr: csr}, codes.Unauthenticated},
		"unknown token":     {&wire.EnrollRequest{Token: ids.NewJoinToken(b.authority.Fingerprint()), Csr: csr}, codes.Unauthenticated},
		"other authority's": {&wire.EnrollRequest{Token: ids.NewJoinToken(ids.HashOf("x")), Csr: csr}, codes.Unauthenticated},
		"no request":        {&wire.EnrollRequest{Token: token}, codes.InvalidArgument},
		"changed request":   {&wire.EnrollRequest{Token: token, Csr: append(csr[:len(csr)-1:len(csr)-1], csr[len(csr)-1]^1)}, codes.InvalidArgument},
		"other curve":       {&wire.EnrollRequest{Token: token, Csr: otherCurve}, codes.InvalidArgument},
		"too large":         {&wire.EnrollRequest{Token: token, Csr: make([]byte, 65<<10)}, codes.ResourceExhausted},
	} {
		if _, err := client.Enroll(deadline(t), c.request); status.Code(err) != c.code {
			t.Errorf("%s: got %v, want %v", name, err, c.code)
		}
	}
	if _, err := client.Enroll(deadline(t), &wire.EnrollRequest{Token: token, Csr: csr}); err != nil {
		t.Fatalf("the refused attempts used the token up: %v", err)
	}
}

func TestEnrolmentIsLimitedPerAddress(t *testing.T) {
	b := start(t, func(c *ingest.Config) { c.EnrolPerHour = 60 })
	client := b.enrolmentClient(t)
	for i := range 100 {
		_, err := client.Enroll(deadline(t), &wire.EnrollRequest{Token: "thj_guess"})
		if status.Code(err) == codes.ResourceExhausted {
			if i < 5 {
				t.Fatalf("refused after %d attempts", i)
			}
			return
		}
	}
	t.Fatal("100 guesses were answered")
}

func TestCertificatesThatDoNotOpenAStream(t *testing.T) {
	b := start(t, nil, "org_a")
	good := b.enrol(t, "org_a")
	foreign := start(t, nil, "org_a").enrol(t, "org_a")
	foreign.trusted = good.trusted
	expiring := start(t, func(c *ingest.Config) { c.NodeLife = -time.Second }, "org_a")
	expired := expiring.enrol(t, "org_a")
	server, err := b.authority.ServerCertificate()
	if err != nil {
		t.Fatal(err)
	}
	with := func(c tls.Certificate) *tls.Config {
		n := *good
		n.certificate = c
		return n.tls()
	}
	old := good.tls()
	old.MinVersion, old.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	for name, c := range map[string]struct {
		bench  *bench
		config *tls.Config
	}{
		"none":                {b, &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: good.trusted, ServerName: wire.ServerName}},
		"another authority's": {b, foreign.tls()},
		"expired":             {expiring, expired.tls()},
		"the server's own":    {b, with(*server)},
		"TLS 1.2":             {b, old},
	} {
		// The handshake fails: nothing of the service is reached.
		if _, err := c.bench.tryOpen(t, c.config); status.Code(err) != codes.Unavailable {
			t.Errorf("%s: got %v", name, err)
		}
	}
	b.open(t, good)
}

func TestNodesRefuseOtherServers(t *testing.T) {
	b, stranger := start(t, nil, "org_a"), start(t, nil, "org_a")
	n := b.enrol(t, "org_a")
	if _, err := stranger.tryOpen(t, n.tls()); err == nil {
		t.Fatal("a node trusts the server of another authority")
	}
	// A node's certificate is no server's.
	c, err := x509.ParseCertificate(n.certificate.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Verify(x509.VerifyOptions{Roots: n.trusted, DNSName: wire.ServerName}); err == nil {
		t.Fatal("a node's certificate serves as an aggregator's")
	}
}

func TestARevokedNodeIsCutOff(t *testing.T) {
	b := start(t, nil, "org_a", "org_b")
	revoked, other := b.enrol(t, "org_a"), b.enrol(t, "org_b")
	s, kept := b.open(t, revoked), b.open(t, other)
	b.store.Revoke(revoked.id)
	if err := s.end(); status.Code(err) != codes.PermissionDenied {
		t.Fatalf("the stream ended with %v", err)
	}
	// With a session cache, so that the client would resume if it could.
	config := revoked.tls()
	config.ClientSessionCache = tls.NewLRUClientSessionCache(4)
	for range 2 {
		// It is told why: a broken handshake could have any reason.
		if _, err := b.tryOpen(t, config); status.Code(err) != codes.PermissionDenied || !strings.Contains(err.Error(), "is revoked") {
			t.Fatalf("a revoked node came back: %v", err)
		}
	}
	kept.send(logs("", 1, 1, "still here"))
	kept.acked("", 1, 1)
}

func TestAStreamEndsWithItsCertificate(t *testing.T) {
	b := start(t, func(c *ingest.Config) { c.NodeLife = 3 * time.Second }, "org_a")
	s := b.open(t, b.enrol(t, "org_a"))
	if err := s.end(); status.Code(err) != codes.Unauthenticated {
		t.Fatalf("the stream ended with %v", err)
	}
}

// renew gives the node its next certificate.
func (b *bench) renew(t *testing.T, n *node) (*node, error) {
	t.Helper()
	key, csr := newCSR(t)
	response, err := b.client(t, n.tls()).Renew(deadline(t), &wire.RenewRequest{Csr: csr, Generation: n.generation})
	if err != nil {
		return nil, err
	}
	next := *n
	next.generation = response.GetGeneration()
	next.certificate = tls.Certificate{Certificate: response.GetCertificates(), PrivateKey: key}
	return &next, nil
}

func TestRenewalCanBeRepeatedUntilTheNewCertificateIsUsed(t *testing.T) {
	b := start(t, nil, "org_a")
	n := b.enrol(t, "org_a")
	for range 3 { // the node dies each time before it has written what it got
		if _, err := b.renew(t, n); err != nil {
			t.Fatal(err)
		}
		b.open(t, n)
	}
	next, err := b.renew(t, n)
	if err != nil || next.generation != n.generation+1 {
		t.Fatalf("%+v %v", next, err)
	}
	b.open(t, next)
	if stored, err := b.store.Node(t.Context(), n.id); err != nil || stored.Generation != next.generation {
		t.Fatalf("the store says generation %d: %v", stored.Generation, err)
	}
	third, err := b.renew(t, next)
	if err != nil {
		t.Fatal(err)
	}
	b.open(t, third)
	b.open(t, third)
}

func TestACopyOfANodeLocksIt(t *testing.T) {
	b := start(t, nil, "org_a")
	original := b.enrol(t, "org_a")
	replica := *original
	next, err := b.renew(t, original)
	if err != nil {
		t.Fatal(err)
	}
	s := b.open(t, next)
	if _, err := b.renew(t, &replica); status.Code(err) != codes.PermissionDenied {
		t.Fatalf("the copy's renewal ended with %v", err)
	}
	if err := s.end(); status.Code(err) != codes.PermissionDenied {
		t.Fatalf("the original's stream ended with %v", err)
	}
	for _, n := range []*node{next, &replica} {
		if _, err := b.tryOpen(t, n.tls()); err == nil {
			t.Fatal("a locked node opened a stream")
		}
	}
}

// A database that was restored from a backup has forgotten renewals: the node
// goes on, and a copy of it is still found.
func TestANodeIsAheadOfARestoredDatabase(t *testing.T) {
	b := start(t, nil, "org_a")
	n := b.enrol(t, "org_a")
	replica := *n
	for range 3 {
		next, err := b.renew(t, n)
		if err != nil {
			t.Fatal(err)
		}
		b.open(t, next)
		n, replica = next, *n
	}
	b.store.ForgetRenewals(n.id)
	b.open(t, n)
	if stored, err := b.store.Node(t.Context(), n.id); err != nil || stored.Generation != n.generation {
		t.Fatalf("the store says generation %d, the node has %d: %v", stored.Generation, n.generation, err)
	}
	if _, err := b.tryOpen(t, replica.tls()); err == nil {
		t.Fatal("the copy of an older certificate opened a stream")
	}
}

func TestARenewalForAnotherGenerationIsRefused(t *testing.T) {
	b := start(t, nil, "org_a")
	n := *b.enrol(t, "org_a")
	n.generation = 7
	if _, err := b.renew(t, &n); status.Code(err) != codes.InvalidArgument {
		t.Fatal(err)
	}
}

func TestNoCompressionIsRegistered(t *testing.T) {
	for _, name := range []string{"gzip", "zstd", "snappy", "deflate"} {
		if encoding.GetCompressor(name) != nil {
			t.Errorf("%s is registered: a bomb would find its decoder", name)
		}
	}
}

func TestConfigNamesWhatIsMissing(t *testing.T) {
	if _, err := ingest.New(ingest.Config{}); err == nil {
		t.Fatal("an empty configuration was taken")
	}
	b := start(t, nil)
	_, err := ingest.New(ingest.Config{
		Authority: b.authority, Committer: b.store, Nodes: b.store, Organisations: b.store, Publish: nil, Registerer: b.registry,
	})
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
}
