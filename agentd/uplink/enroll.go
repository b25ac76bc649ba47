package uplink

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/theazo/observability/shared/ids"
	"github.com/theazo/observability/shared/wire"
)

// enrollTimeout bounds one attempt to enrol.
const enrollTimeout = 20 * time.Second

// EnrollConfig says where and as whom a node enrols.
type EnrollConfig struct {
	Address  string // of the aggregator's enrolment port, host:port
	Token    string // join token, thj_…
	StateDir string // made where it is missing
	NodeName string // name that people know the host by
	Version  string // of agentd
	Log      hclog.Logger
}

// refusedError says that another attempt with the same token cannot succeed.
type refusedError struct{ error }

func (e refusedError) Unwrap() error { return e.error }

// Refused reports whether an error of Enroll stays the same at every further
// attempt: somebody has to give another token or address.
func Refused(err error) bool {
	var r refusedError
	return errors.As(err, &r)
}

// Enroll trades a join token for an identity, which it keeps in the state
// directory. The token is sent only to a server whose authority is the one
// that the token names. Until the identity is on disk nothing is; a crash
// before that leaves the machine as it was.
func Enroll(ctx context.Context, c EnrollConfig) (Identity, error) {
	authority, err := ids.ParseJoinToken(c.Token)
	if err != nil {
		return Identity{}, refusedError{fmt.Errorf("the join token %w", err)}
	}
	if err := os.MkdirAll(c.StateDir, 0o700); err != nil {
		return Identity{}, fmt.Errorf("make the state directory: %w", err)
	}
	key, csr, err := newRequest()
	if err != nil {
		return Identity{}, err
	}
	response, err := callEnroll(ctx, c, authority, &wire.EnrollRequest{
		Token: c.Token, Csr: csr, NodeName: c.NodeName, MachineId: machineID(), Version: c.Version,
	})
	if err != nil {
		return Identity{}, err
	}
	id, err := newIdentity(key, response.GetCertificates(), response.GetAuthorities())
	if err != nil {
		return Identity{}, fmt.Errorf("the aggregator answered with an identity that cannot be used: %w", err)
	}
	if !trusts(id.authorities, authority) {
		return Identity{}, errors.New("the aggregator answered with another authority than the join token names")
	}
	if err := id.save(c.StateDir); err != nil {
		return Identity{}, fmt.Errorf("%w (the join token is used up: make a new one)", err)
	}
	if c.Log != nil {
		c.Log.Info("identity written", "node_id", id.Node, "organisation", id.Org, "certificate_until", id.NotAfter)
	}
	return id, nil
}

func callEnroll(ctx context.Context, c EnrollConfig, authority ids.Hash, request *wire.EnrollRequest) (*wire.EnrollResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, enrollTimeout)
	defer cancel()
	var stranger atomic.Bool
	config := &tls.Config{
		MinVersion: tls.VersionTLS13, ServerName: wire.ServerName,
		InsecureSkipVerify: true, //nolint:gosec // VerifyConnection does it, against the authority of the join token
		VerifyConnection: func(state tls.ConnectionState) error {
			err := verifyAuthority(state.PeerCertificates, authority)
			stranger.Store(errors.Is(err, errStranger))
			return err
		},
	}
	conn, err := grpc.NewClient("passthrough:///"+c.Address, grpc.WithTransportCredentials(credentials.NewTLS(config)), grpc.WithDisableServiceConfig())
	if err != nil {
		return nil, refusedError{fmt.Errorf("enrolment address %q: %w", c.Address, err)}
	}
	defer func() { _ = conn.Close() }()
	response, err := wire.NewEnrolmentServiceClient(conn).Enroll(ctx, request)
	if err == nil {
		return response, nil
	}
	err = fmt.Errorf("enrol at %s: %w", c.Address, err)
	switch code := status.Code(err); {
	case stranger.Load(), code == codes.Unauthenticated, code == codes.PermissionDenied, code == codes.InvalidArgument, code == codes.Unimplemented:
		return nil, refusedError{err}
	}
	return nil, err
}

// errStranger says that a server does not belong to the join token.
var errStranger = errors.New("the server's authority is not the one that the join token names: is the address right, and the token of this aggregator?")

// verifyAuthority checks a server's certificates against the hash of the only
// authority that is trusted.
func verifyAuthority(chain []*x509.Certificate, authority ids.Hash) error {
	roots, intermediates := x509.NewCertPool(), x509.NewCertPool()
	found := false
	for _, c := range chain {
		if sha256.Sum256(c.Raw) == authority && c.IsCA {
			roots.AddCert(c)
			found = true
		} else {
			intermediates.AddCert(c)
		}
	}
	if !found {
		return errStranger
	}
	_, err := chain[0].Verify(x509.VerifyOptions{
		DNSName: wire.ServerName, Roots: roots, Intermediates: intermediates, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	return err
}

func trusts(authorities []*x509.Certificate, want ids.Hash) bool {
	for _, a := range authorities {
		if sha256.Sum256(a.Raw) == want {
			return true
		}
	}
	return false
}
