package ingest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/theazo/observability/shared/ids"
	"github.com/theazo/observability/shared/telemetry"
	"github.com/theazo/observability/shared/wire"
)

// How long certificates are valid. They start a little in the past, for nodes
// whose clock is behind.
const (
	authorityLife  = 10 * 365 * 24 * time.Hour
	serverLife     = 30 * 24 * time.Hour
	clockTolerance = 5 * time.Minute
)

// Names of the authority's files in its directory.
const (
	authorityFile    = "ca.pem"
	authorityKeyFile = "ca-key.pem"
)

// Authority is the certificate authority of one installation: every aggregator
// of it opens the same key, every node trusts its certificate and no other. It
// is safe for concurrent use.
type Authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

// OpenAuthority opens the authority in a directory, which it makes at the
// first start. A crash at any point leaves a directory that it can open.
func OpenAuthority(dir string) (*Authority, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the directory of the certificate authority: %w", err)
	}
	key, err := openAuthorityKey(dir)
	if err != nil {
		return nil, err
	}
	certificate, err := openAuthorityCertificate(dir, key)
	if err != nil {
		return nil, err
	}
	return &Authority{certificate: certificate, key: key}, nil
}

func openAuthorityKey(dir string) (*ecdsa.PrivateKey, error) {
	path := filepath.Join(dir, authorityKeyFile)
	der, err := readPEM(path, "PRIVATE KEY")
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Stat(filepath.Join(dir, authorityFile)); err == nil {
			return nil, fmt.Errorf("%s is there but %s is missing: put the key back from its backup; "+
				"without it every node has to enrol again with a new authority (then move both files away)", authorityFile, path)
		}
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, fmt.Errorf("make the authority's key: %w", err)
		}
		if der, err = x509.MarshalPKCS8PrivateKey(key); err != nil {
			return nil, fmt.Errorf("encode the authority's key: %w", err)
		}
		if err := createPEM(path, "PRIVATE KEY", der, 0o600); err != nil {
			return nil, fmt.Errorf("write the authority's key: %w", err)
		}
		der, err = readPEM(path, "PRIVATE KEY") // another process may have been first
		if err != nil {
			return nil, fmt.Errorf("read the authority's key: %w", err)
		}
	} else if err != nil {
		return nil, fmt.Errorf("read the authority's key: %w", err)
	}
	if info, err := os.Stat(path); err == nil && info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s can be read by others (mode %04o): whoever read it can make certificates; "+
			"if nobody did, run chmod 600 on it", path, info.Mode().Perm())
	}
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, fmt.Errorf("read the authority's key %s: %w", path, err)
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("read the authority's key %s: it is a %T, an ECDSA key is wanted", path, parsed)
	}
	return key, nil
}

func openAuthorityCertificate(dir string, key *ecdsa.PrivateKey) (*x509.Certificate, error) {
	path := filepath.Join(dir, authorityFile)
	der, err := readPEM(path, "CERTIFICATE")
	if errors.Is(err, fs.ErrNotExist) {
		now := time.Now()
		der, err = sign(&x509.Certificate{
			Subject: pkix.Name{CommonName: "theazo observability authority"}, NotBefore: now.Add(-clockTolerance), NotAfter: now.Add(authorityLife),
			IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		}, nil, key.Public(), key)
		if err != nil {
			return nil, fmt.Errorf("make the authority's certificate: %w", err)
		}
		if err := createPEM(path, "CERTIFICATE", der, 0o644); err != nil {
			return nil, fmt.Errorf("write the authority's certificate: %w", err)
		}
		der, err = readPEM(path, "CERTIFICATE") // another process may have been first
	}
	if err != nil {
		return nil, fmt.Errorf("read the authority's certificate: %w", err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("read the authority's certificate %s: %w", path, err)
	}
	if public, ok := certificate.PublicKey.(*ecdsa.PublicKey); !ok || !public.Equal(key.Public()) {
		return nil, fmt.Errorf("%s and %s in %s do not belong together: put back the pair that was made together", authorityFile, authorityKeyFile, dir)
	}
	return certificate, nil
}

// Fingerprint is the SHA-256 of the authority's certificate (DER): the part of
// a join token by which a node knows its aggregator.
func (a *Authority) Fingerprint() ids.Hash { return sha256.Sum256(a.certificate.Raw) }

// ServerCertificate issues a certificate for an aggregator, valid for 30 days,
// for wire.ServerName and further names or addresses. The authority's own
// certificate is part of its chain, since enrolling nodes know only its hash.
func (a *Authority) ServerCertificate(hosts ...string) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a server key: %w", err)
	}
	now := time.Now()
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: wire.ServerName}, DNSNames: []string{wire.ServerName},
		NotBefore: now.Add(-clockTolerance), NotAfter: now.Add(serverLife),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, h)
		}
	}
	der, err := sign(template, a.certificate, key.Public(), a.key)
	if err != nil {
		return nil, fmt.Errorf("issue a server certificate for %v: %w", hosts, err)
	}
	return &tls.Certificate{Certificate: [][]byte{der, a.certificate.Raw}, PrivateKey: key}, nil
}

// nodeCertificate issues a node's certificate for the public key of a
// certificate request. Nothing else of the request is used.
func (a *Authority) nodeCertificate(csr []byte, n telemetry.NodeIdentity, generation int64, until time.Time) ([]byte, error) {
	request, err := x509.ParseCertificateRequest(csr)
	if err != nil {
		return nil, telemetry.Failf(telemetry.InvalidRequest, "The certificate request cannot be read: %v.", err)
	}
	if err := request.CheckSignature(); err != nil {
		return nil, telemetry.Failf(telemetry.InvalidRequest, "The certificate request is not signed by its own key: %v.", err)
	}
	public, ok := request.PublicKey.(*ecdsa.PublicKey)
	if !ok || public.Curve != elliptic.P256() {
		return nil, telemetry.Failf(telemetry.InvalidRequest, "The certificate request holds a key of another kind than ECDSA P-256.")
	}
	// Nodes renew at a share of the whole life, so little of it may be over at once.
	now := time.Now()
	early := min(clockTolerance, max(0, until.Sub(now)/10))
	der, err := sign(&x509.Certificate{
		Subject: wire.NodeSubject(n, generation), URIs: []*url.URL{wire.NodeURI(n)},
		NotBefore: now.Add(-early), NotAfter: until,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, a.certificate, public, a.key)
	if err != nil {
		return nil, fmt.Errorf("issue a certificate for node %s: %w", n.ID, err)
	}
	return der, nil
}

// pool holds the certificates that node certificates must come from.
func (a *Authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.certificate)
	return pool
}

// serverCertificates issues a server certificate when the first one is asked
// for, and the next one at two thirds of its life.
type serverCertificates struct {
	authority *Authority
	hosts     []string

	mu      sync.Mutex
	current *tls.Certificate
	renewAt time.Time
}

func (s *serverCertificates) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current == nil || time.Now().After(s.renewAt) {
		c, err := s.authority.ServerCertificate(s.hosts...)
		if err != nil {
			return nil, err
		}
		s.current, s.renewAt = c, time.Now().Add(serverLife*2/3)
	}
	return s.current, nil
}

// sign makes a certificate; parent nil: it signs itself.
func sign(template, parent *x509.Certificate, public any, key *ecdsa.PrivateKey) ([]byte, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("draw a serial number: %w", err)
	}
	template.SerialNumber = serial
	if parent == nil {
		parent = template
	}
	return x509.CreateCertificate(rand.Reader, template, parent, public, key)
}

func readPEM(path, kind string) ([]byte, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil || block.Type != kind {
		return nil, fmt.Errorf("%s holds no PEM block %q", path, kind)
	}
	return block.Bytes, nil
}

// createPEM writes a new file so that it is either whole and on disk or not
// there. Where the file exists already, the one that was first stays.
func createPEM(path, kind string, der []byte, mode fs.FileMode) (err error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, filepath.Base(path)+".*.tmp")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }() // its other name stays
	_, err = f.Write(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	if err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		return err
	}
	// Linking, unlike renaming, never replaces: two first starts at once end
	// with one authority.
	if err := os.Link(f.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
