package wire

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"github.com/theazo/observability/shared/telemetry"
)

// ServerName is in the certificate of every aggregator, whatever host it runs
// on: nodes check it against their own authority, so public names and their
// owners play no part.
const ServerName = "aggregator.theazo.internal"

const trustDomain = "theazo"

// NodeURI is the name of a node in its certificate:
// spiffe://theazo/org/<org>/node/<node>, or spiffe://theazo/platform/node/<node>
// for nodes that may name the organisation of a frame.
func NodeURI(n telemetry.NodeIdentity) *url.URL {
	path := "/platform/node/" + string(n.ID)
	if !n.Platform() {
		path = "/org/" + string(n.Org) + "/node/" + string(n.ID)
	}
	return &url.URL{Scheme: "spiffe", Host: trustDomain, Path: path}
}

// NodeSubject is the subject of a node's certificate. The generation stands in
// it, so that an aggregator knows it without asking and a node cannot claim another.
func NodeSubject(n telemetry.NodeIdentity, generation int64) pkix.Name {
	return pkix.Name{CommonName: string(n.ID), SerialNumber: strconv.FormatInt(generation, 10)}
}

// NodeOf reads the node and the generation from a certificate that has been
// verified. Any other form than NodeURI and NodeSubject give is refused.
func NodeOf(c *x509.Certificate) (n telemetry.NodeIdentity, generation int64, err error) {
	if len(c.URIs) != 1 || len(c.DNSNames)+len(c.IPAddresses)+len(c.EmailAddresses) > 0 {
		return n, 0, errors.New("it is not a node's certificate: one spiffe:// name is wanted and no other")
	}
	parts := strings.Split(c.URIs[0].Path, "/")
	switch {
	case len(parts) == 5 && parts[1] == "org" && parts[3] == "node":
		n = telemetry.NodeIdentity{Org: telemetry.OrgID(parts[2]), ID: telemetry.NodeID(parts[4])}
		if err := telemetry.CheckID(parts[2]); err != nil {
			return n, 0, fmt.Errorf("its organisation %w", err)
		}
	case len(parts) == 4 && parts[1] == "platform" && parts[2] == "node":
		n.ID = telemetry.NodeID(parts[3])
	}
	if err := telemetry.CheckID(string(n.ID)); err != nil {
		return n, 0, fmt.Errorf("its node id %w", err)
	}
	// One spelling only: no port, query, escape or second slash says the same.
	if c.URIs[0].String() != NodeURI(n).String() {
		return n, 0, fmt.Errorf("its name %.200q is not of the form spiffe://%s/…/node/…", c.URIs[0], trustDomain)
	}
	generation, err = strconv.ParseInt(c.Subject.SerialNumber, 10, 64)
	if err != nil || generation < 1 {
		return n, 0, fmt.Errorf("its generation %.20q is not a number from 1", c.Subject.SerialNumber)
	}
	return n, generation, nil
}
