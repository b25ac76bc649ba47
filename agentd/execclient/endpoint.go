package execclient

import (
	"context"
	"net"
	"strings"
	"time"
)

const dialTimeout = 2 * time.Second

// endpoint is where THEAZO_ENDPOINT points.
type endpoint struct {
	network, address string
	host             string // as the request names it
	path             string // before the paths of the endpoint: /t/TOKEN, or empty
}

// parseEndpoint reads http://HOST:PORT[/PATH] or unix:///PATH/TO.SOCK. ok is
// false for anything else.
func parseEndpoint(text string) (e endpoint, ok bool) {
	if socket, isUnix := strings.CutPrefix(text, "unix://"); isUnix {
		return endpoint{network: "unix", address: socket, host: "agentd"}, strings.HasPrefix(socket, "/")
	}
	rest, isHTTP := strings.CutPrefix(text, "http://")
	if !isHTTP {
		return e, false
	}
	host, path, _ := strings.Cut(rest, "/")
	e = endpoint{network: "tcp", address: host, host: host}
	if path = strings.Trim(path, "/"); path != "" {
		e.path = "/" + path
	}
	if _, _, err := net.SplitHostPort(host); err != nil {
		e.address = host + ":80"
	}
	// What would end the request's line is no part of an address.
	return e, host != "" && !strings.ContainsAny(text, " \t\r\n@")
}

func (e endpoint) dial() (net.Conn, error) {
	d := net.Dialer{Timeout: dialTimeout}
	return d.DialContext(context.Background(), e.network, e.address)
}
