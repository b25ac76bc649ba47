package uplink

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/theazo/observability/shared/wire"
)

// Step is one stage of the way to an aggregator.
type Step struct {
	Name   string // "name", "connection", "encryption" or "admission"
	Took   time.Duration
	Detail string
	Err    error // nil where it went well
}

// probeTimeout bounds each step.
const probeTimeout = 5 * time.Second

// Probe goes the way to an aggregator's ingest server as far as that is
// possible without a session, so that a running agentd keeps its own: the name
// is looked up, a connection made, TLS spoken by this node's identity, and a
// call made that the server must take and refuse for what is missing in it.
// Whether the node is revoked is said to sessions only. It stops at the first
// step that fails. Without an identity it stops after the connection.
func Probe(ctx context.Context, id *Identity, address string) []Step {
	p := &probe{id: id, address: address}
	for _, step := range []struct {
		name string
		do   func(context.Context) (string, error)
	}{{"name", p.lookUp}, {"connection", p.connect}, {"encryption", p.encrypt}, {"admission", p.call}} {
		if id == nil && step.name == "encryption" {
			break
		}
		start := time.Now()
		stepCtx, cancel := context.WithTimeout(ctx, probeTimeout)
		detail, err := step.do(stepCtx)
		cancel()
		p.steps = append(p.steps, Step{Name: step.name, Took: time.Since(start), Detail: detail, Err: err})
		if err != nil {
			break
		}
	}
	if p.conn != nil {
		_ = p.conn.Close()
	}
	return p.steps
}

type probe struct {
	id      *Identity
	address string
	conn    net.Conn
	steps   []Step
}

func (p *probe) lookUp(ctx context.Context) (string, error) {
	host, _, err := net.SplitHostPort(p.address)
	if err != nil {
		return "", err
	}
	if net.ParseIP(host) != nil {
		return "an address, no name to look up", nil
	}
	addresses, err := net.DefaultResolver.LookupHost(ctx, host)
	if err != nil {
		return "", err
	}
	return host + " is " + strings.Join(addresses[:min(len(addresses), 4)], ", "), nil
}

func (p *probe) connect(ctx context.Context) (string, error) {
	var d net.Dialer
	var err error
	if p.conn, err = d.DialContext(ctx, "tcp", p.address); err != nil {
		return "", err
	}
	return "connected to " + p.conn.RemoteAddr().String(), nil
}

// errOtherAuthority is what most often is wrong with a certificate.
var errOtherAuthority = errors.New("the server's certificate is not of the authority that this node was enrolled with: " +
	"another aggregator, or something in between that ends TLS")

func (p *probe) encrypt(ctx context.Context) (string, error) {
	config := p.id.tlsConfig()
	config.NextProtos = []string{"h2"}
	conn := tls.Client(p.conn, config)
	if err := conn.HandshakeContext(ctx); err != nil {
		if _, other := errors.AsType[x509.UnknownAuthorityError](err); other {
			return "", fmt.Errorf("%w (%w)", errOtherAuthority, err)
		}
		return "", err
	}
	return "TLS 1.3 with the authority of this node", nil
}

// call opens a stream and ends it without a word: a server that takes our
// certificate says that the Hello is missing.
func (p *probe) call(ctx context.Context) (string, error) {
	conn, err := dial(p.address, p.id)
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close() }()
	stream, err := wire.NewIngestServiceClient(conn).Stream(ctx)
	if err == nil {
		_ = stream.CloseSend() // Recv says why, where it fails
		_, err = stream.Recv()
	}
	if status.Code(err) != codes.InvalidArgument {
		return "", explain(p.id, err)
	}
	return "the certificate is taken", nil
}
