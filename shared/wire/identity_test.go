package wire_test

import (
	"crypto/x509"
	"net/url"
	"testing"

	"github.com/theazo/observability/shared/telemetry"
	"github.com/theazo/observability/shared/wire"
)

func nodeCertificate(t *testing.T, uri, generation string) *x509.Certificate {
	t.Helper()
	u, err := url.Parse(uri)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{URIs: []*url.URL{u}}
	c.Subject.SerialNumber = generation
	return c
}

func TestNodeNamesRoundTrip(t *testing.T) {
	for _, n := range []telemetry.NodeIdentity{
		{ID: "nod_1"},
		{ID: "nod_1", Org: "org_a"},
		{ID: "a:b.c-d", Org: "x:y"},
		{ID: "nod_1", Org: ".."},
	} {
		c := nodeCertificate(t, wire.NodeURI(n).String(), wire.NodeSubject(n, 7).SerialNumber)
		got, generation, err := wire.NodeOf(c)
		if err != nil || got != n || generation != 7 {
			t.Errorf("%+v came back as %+v, generation %d: %v", n, got, generation, err)
		}
	}
}

func TestOtherNamesAreNoNodes(t *testing.T) {
	for _, uri := range []string{
		"spiffe://theazo/org/org_a/node/", "spiffe://theazo/org//node/nod_1", "spiffe://theazo/node/nod_1",
		"spiffe://other/platform/node/nod_1", "https://theazo/platform/node/nod_1", "spiffe://theazo/platform/node/nod_1/",
		"spiffe://theazo/platform/node/nod_1?x=1", "spiffe://theazo:1/platform/node/nod_1", "spiffe://u@theazo/platform/node/nod_1",
		"spiffe://theazo/platform/node/nod%5f1", "spiffe://theazo/platform/node/nod_1#x", "spiffe://theazo/org/org_a/agent/nod_1",
		"spiffe://theazo/org/org%2fa/node/nod_1", "spiffe://theazo//platform/node/nod_1", "spiffe://theazo",
	} {
		if n, _, err := wire.NodeOf(nodeCertificate(t, uri, "1")); err == nil {
			t.Errorf("%s was taken as %+v", uri, n)
		}
	}
	good := "spiffe://theazo/platform/node/nod_1"
	for _, generation := range []string{"", "0", "-1", "1.0", "99999999999999999999"} {
		if _, _, err := wire.NodeOf(nodeCertificate(t, good, generation)); err == nil {
			t.Errorf("generation %q was taken", generation)
		}
	}
	two := nodeCertificate(t, good, "1")
	two.URIs = append(two.URIs, two.URIs[0])
	named := nodeCertificate(t, good, "1")
	named.DNSNames = []string{wire.ServerName}
	for _, c := range []*x509.Certificate{two, named, {}} {
		if _, _, err := wire.NodeOf(c); err == nil {
			t.Errorf("a certificate with %d URIs and names %v was taken", len(c.URIs), c.DNSNames)
		}
	}
}
