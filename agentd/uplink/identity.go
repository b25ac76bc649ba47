package uplink

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/theazo/observability/shared/telemetry"
	"github.com/theazo/observability/shared/wire"
)

// identityFile holds key, certificate and authorities together, so that there
// is no moment at which they do not belong to each other.
const identityFile = "identity.pem"

// Identity is who a node is: its key, its certificate, and the authorities it
// trusts. It is never changed; renewal makes another one.
type Identity struct {
	Node       telemetry.NodeID
	Org        telemetry.OrgID // empty on platform nodes
	Platform   bool            // the node may name organisations
	Generation int64
	NotBefore  time.Time
	NotAfter   time.Time

	certificate tls.Certificate
	authorities []*x509.Certificate
}

// LoadIdentity reads the identity in a state directory. The error is
// fs.ErrNotExist where the node has not enrolled yet.
func LoadIdentity(stateDir string) (Identity, error) {
	path := filepath.Join(stateDir, identityFile)
	text, err := os.ReadFile(path)
	if err != nil {
		return Identity{}, fmt.Errorf("read the node's identity: %w", err)
	}
	id, err := parseIdentity(text)
	if err != nil {
		return Identity{}, fmt.Errorf("read the node's identity %s: %w (remove the file and enrol again with a new join token)", path, err)
	}
	return id, nil
}

// PEM blocks of the identity file, in this order; the last two may repeat.
const (
	keyBlock         = "PRIVATE KEY"
	certificateBlock = "CERTIFICATE"
	authorityBlock   = "TRUSTED CERTIFICATE"
)

func parseIdentity(text []byte) (Identity, error) {
	var key *ecdsa.PrivateKey
	var chain, authorities [][]byte
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			break
		}
		switch block.Type {
		case keyBlock:
			parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
			if err != nil {
				return Identity{}, err
			}
			var ok bool
			if key, ok = parsed.(*ecdsa.PrivateKey); !ok {
				return Identity{}, fmt.Errorf("its key is a %T, an ECDSA key is wanted", parsed)
			}
		case certificateBlock:
			chain = append(chain, block.Bytes)
		case authorityBlock:
			authorities = append(authorities, block.Bytes)
		}
	}
	if key == nil {
		return Identity{}, errors.New("it holds no key")
	}
	return newIdentity(key, chain, authorities)
}

// newIdentity puts an identity together and checks that its parts belong to
// each other.
func newIdentity(key *ecdsa.PrivateKey, chain, authorities [][]byte) (Identity, error) {
	if len(chain) == 0 || len(authorities) == 0 {
		return Identity{}, errors.New("a certificate or its authority is missing")
	}
	certificates := make([]*x509.Certificate, len(chain))
	for i, der := range chain {
		var err error
		if certificates[i], err = x509.ParseCertificate(der); err != nil {
			return Identity{}, err
		}
	}
	leaf := certificates[0]
	id := Identity{
		NotBefore: leaf.NotBefore.UTC(), NotAfter: leaf.NotAfter.UTC(),
		certificate: tls.Certificate{Certificate: chain, PrivateKey: key, Leaf: leaf},
	}
	for _, der := range authorities {
		a, err := x509.ParseCertificate(der)
		if err != nil {
			return Identity{}, err
		}
		id.authorities = append(id.authorities, a)
	}
	if public, ok := leaf.PublicKey.(*ecdsa.PublicKey); !ok || !public.Equal(key.Public()) {
		return Identity{}, errors.New("the certificate was made for another key")
	}
	intermediates := x509.NewCertPool()
	for _, c := range certificates[1:] {
		intermediates.AddCert(c)
	}
	// Whether it is still valid is the aggregator's to say: our clock may be wrong.
	if _, err := leaf.Verify(x509.VerifyOptions{
		Roots: id.roots(), Intermediates: intermediates, CurrentTime: leaf.NotBefore, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}); err != nil {
		return Identity{}, err
	}
	node, generation, err := wire.NodeOf(leaf)
	if err != nil {
		return Identity{}, err
	}
	id.Node, id.Org, id.Platform, id.Generation = node.ID, node.Org, node.Platform(), generation
	return id, nil
}

func (id *Identity) roots() *x509.CertPool {
	pool := x509.NewCertPool()
	for _, a := range id.authorities {
		pool.AddCert(a)
	}
	return pool
}

// tlsConfig trusts the node's own authorities and nobody else, whatever the
// machine trusts.
func (id *Identity) tlsConfig() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, ServerName: wire.ServerName, RootCAs: id.roots(),
		// Not Certificates: those are held back where the server does not name
		// their authority, and the refusal would not say why.
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &id.certificate, nil },
	}
}

// save writes the identity so that after a crash the old or the new one is there.
func (id *Identity) save(stateDir string) error {
	key, err := x509.MarshalPKCS8PrivateKey(id.certificate.PrivateKey)
	if err != nil {
		return fmt.Errorf("encode the node's key: %w", err)
	}
	var b bytes.Buffer
	write := func(kind string, der []byte) { _ = pem.Encode(&b, &pem.Block{Type: kind, Bytes: der}) } // a Buffer takes everything
	write(keyBlock, key)
	for _, der := range id.certificate.Certificate {
		write(certificateBlock, der)
	}
	for _, a := range id.authorities {
		write(authorityBlock, a.Raw)
	}
	if err := replaceFile(filepath.Join(stateDir, identityFile), b.Bytes()); err != nil {
		return fmt.Errorf("write the node's identity: %w", err)
	}
	return nil
}

// replaceFile writes a file for its owner only: temporary file, fsync, rename,
// fsync of the directory.
func replaceFile(path string, content []byte) (err error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, filepath.Base(path)+".*.tmp") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	_, err = f.Write(content)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// newRequest makes a key, which never leaves this machine, and a request for
// its certificate.
func newRequest() (*ecdsa.PrivateKey, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make the node's key: %w", err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, nil, fmt.Errorf("make the certificate request: %w", err)
	}
	return key, csr, nil
}

// machineID is a stable id of this machine that does not give its own away.
// Empty where the machine has none.
func machineID() string {
	text, err := os.ReadFile("/etc/machine-id")
	if err != nil || len(bytes.TrimSpace(text)) == 0 {
		return ""
	}
	h := sha256.Sum256(append([]byte("theazo machine\x00"), bytes.TrimSpace(text)...))
	return hex.EncodeToString(h[:16])
}

// bootID is the kernel's id of this boot. Empty where it gives none.
func bootID() string {
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}
