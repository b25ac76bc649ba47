package uplink

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io/fs"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/theazo/observability/shared/telemetry"
	"github.com/theazo/observability/shared/wire"
)

// authority is a certificate authority for tests.
type authority struct {
	t           *testing.T
	key         *ecdsa.PrivateKey
	certificate *x509.Certificate
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t, key: newKey(t)}
	der := a.sign(&x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, Subject: pkix.Name{CommonName: "test"}}, &a.key.PublicKey)
	var err error
	if a.certificate, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return a
}

func (a *authority) sign(template *x509.Certificate, public *ecdsa.PublicKey) []byte {
	a.t.Helper()
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		a.t.Fatal(err)
	}
	template.SerialNumber, template.NotBefore = serial, time.Now().Add(-time.Minute)
	if template.NotAfter.IsZero() {
		template.NotAfter = time.Now().Add(time.Hour)
	}
	parent := a.certificate
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	return der
}

func (a *authority) node(n telemetry.NodeIdentity, generation int64, public *ecdsa.PublicKey) []byte {
	a.t.Helper()
	return a.sign(&x509.Certificate{
		Subject: wire.NodeSubject(n, generation), URIs: []*url.URL{wire.NodeURI(n)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, public)
}

func (a *authority) server() tls.Certificate {
	a.t.Helper()
	key := newKey(a.t)
	der := a.sign(&x509.Certificate{DNSNames: []string{wire.ServerName}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}, &key.PublicKey)
	return tls.Certificate{Certificate: [][]byte{der, a.certificate.Raw}, PrivateKey: key}
}

// identity makes a node's identity and saves it.
func (a *authority) identity(dir string, n telemetry.NodeIdentity) Identity {
	a.t.Helper()
	key := newKey(a.t)
	id, err := newIdentity(key, [][]byte{a.node(n, 1, &key.PublicKey)}, [][]byte{a.certificate.Raw})
	if err != nil {
		a.t.Fatal(err)
	}
	if err := id.save(dir); err != nil {
		a.t.Fatal(err)
	}
	return id
}

func TestIdentitySurvivesItsFile(t *testing.T) {
	a, dir := newAuthority(t), t.TempDir()
	if _, err := LoadIdentity(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("before enrolment: %v", err)
	}
	for _, n := range []telemetry.NodeIdentity{{ID: "nod_1", Org: "org_a"}, {ID: "nod_2"}} {
		saved := a.identity(dir, n)
		loaded, err := LoadIdentity(dir)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(saved, loaded, cmpopts.IgnoreUnexported(Identity{})); d != "" {
			t.Fatal(d)
		}
		if loaded.Node != n.ID || loaded.Org != n.Org || loaded.Platform != n.Platform() || loaded.Generation != 1 {
			t.Fatalf("%+v", loaded)
		}
	}
	info, err := os.Stat(filepath.Join(dir, identityFile))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("mode %v: %v", info.Mode(), err)
	}
	if left, err := filepath.Glob(filepath.Join(dir, "*.tmp")); err != nil || len(left) > 0 {
		t.Fatalf("left behind: %v %v", left, err)
	}
}

func TestDamagedIdentityIsRefused(t *testing.T) {
	a, dir := newAuthority(t), t.TempDir()
	a.identity(dir, telemetry.NodeIdentity{ID: "nod_1", Org: "org_a"})
	path := filepath.Join(dir, identityFile)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(bytes.TrimSpace(whole)); i += 7 {
		if err := os.WriteFile(path, whole[:i], 0o600); err != nil {
			t.Fatal(err)
		}
		if id, err := LoadIdentity(dir); err == nil {
			t.Fatalf("cut at %d of %d bytes it is %+v", i, len(whole), id)
		}
	}
}

func TestIdentityPartsMustBelongTogether(t *testing.T) {
	a, other := newAuthority(t), newAuthority(t)
	key, n := newKey(t), telemetry.NodeIdentity{ID: "nod_1", Org: "org_a"}
	good := a.node(n, 1, &key.PublicKey)
	server := a.server()
	for name, c := range map[string]struct {
		key         *ecdsa.PrivateKey
		chain, from [][]byte
	}{
		"no certificate":       {key, nil, [][]byte{a.certificate.Raw}},
		"no authority":         {key, [][]byte{good}, nil},
		"another key":          {newKey(t), [][]byte{good}, [][]byte{a.certificate.Raw}},
		"another authority":    {key, [][]byte{good}, [][]byte{other.certificate.Raw}},
		"a server":             {server.PrivateKey.(*ecdsa.PrivateKey), server.Certificate[:1], [][]byte{a.certificate.Raw}},
		"no node":              {key, [][]byte{a.node(telemetry.NodeIdentity{}, 1, &key.PublicKey)}, [][]byte{a.certificate.Raw}},
		"no generation":        {key, [][]byte{a.node(n, 0, &key.PublicKey)}, [][]byte{a.certificate.Raw}},
		"bytes of nothing":     {key, [][]byte{{1, 2}}, [][]byte{a.certificate.Raw}},
		"authority of nothing": {key, [][]byte{good}, [][]byte{{1, 2}}},
	} {
		if id, err := newIdentity(c.key, c.chain, c.from); err == nil {
			t.Errorf("%s: %+v", name, id)
		}
	}
	if _, err := newIdentity(key, [][]byte{good}, [][]byte{a.certificate.Raw}); err != nil {
		t.Fatal(err)
	}
}

func TestMachineIDKeepsTheMachinesSecret(t *testing.T) {
	id := machineID()
	text, err := os.ReadFile("/etc/machine-id")
	if errors.Is(err, fs.ErrNotExist) || len(bytes.TrimSpace(text)) == 0 {
		if id != "" {
			t.Fatalf("without /etc/machine-id it is %q", id)
		}
		return
	}
	if len(id) != 32 || bytes.Contains(text, []byte(id)) || id != machineID() {
		t.Fatalf("%q", id)
	}
}
