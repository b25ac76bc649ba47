package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/coder/websocket"
)

// arrival is a line that a client got.
type arrival struct {
	seq int
	at  time.Time
}

// filter is what a client asks for, and which lines that is.
type filter struct {
	params url.Values
	match  func(seq int) bool
}

// filterOf gives each client a filter of its own.
func filterOf(i int) filter {
	agent, session := "agt_"+strconv.Itoa(i%agents), "ses_"+strconv.Itoa(i%100)
	switch i % 20 {
	case 14, 15, 16:
		return filter{url.Values{"sessionId": {session}, "q": {fmt.Sprintf("-absent%d", i)}}, func(seq int) bool { return string(sessionOf(seq)) == session }}
	case 17:
		return filter{
			url.Values{"q": {fmt.Sprintf("level:error -word%d -absent%d", i%words, i)}},
			func(seq int) bool { return isError(seq) && wordOf(seq) != i%words },
		}
	case 18:
		return filter{
			url.Values{"q": {fmt.Sprintf("agent:%s OR session:%s /status=5\\d\\d/ OR absent%d", agent, session, i)}},
			func(seq int) bool { return string(agentOf(seq)) == agent },
		}
	default:
		return filter{url.Values{"agentId": {agent}}, func(seq int) bool { return string(agentOf(seq)) == agent }}
	}
}

// client follows a stream.
type client struct {
	url, key string
	filter
	socket bool

	got    []arrival
	lastID string
}

// follow reads until ctx ends, the connection does, or on says no. opened is
// called once the stream has begun.
func (c *client) follow(ctx context.Context, opened func(), on func(seq int) bool) error {
	if c.socket {
		return c.overSocket(ctx, opened, on)
	}
	q := c.params.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.url+"/v1/logs/stream?"+q, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+c.key)
	if c.lastID != "" {
		req.Header.Set("Last-Event-ID", c.lastID)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1024))
		return fmt.Errorf("a stream answered %s: %s", resp.Status, text)
	}
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(make([]byte, 0, 4096), 1<<20)
	for lines.Scan() {
		line := lines.Bytes()
		switch {
		case bytes.HasPrefix(line, []byte("id: ")):
			c.lastID = string(line[4:])
		case bytes.HasPrefix(line, []byte("event: ready")):
			opened()
		case bytes.HasPrefix(line, []byte("event: gap")):
			return fmt.Errorf("a client was told that it missed lines after %s", c.lastID)
		case bytes.HasPrefix(line, []byte("data: ")):
			if !c.take(line, on) {
				return nil
			}
		}
	}
	return lines.Err()
}

// take notes every line in a piece of JSON.
func (c *client) take(text []byte, on func(seq int) bool) bool {
	for {
		_, rest, found := bytes.Cut(text, []byte(`"message":"#`))
		if !found {
			return true
		}
		text = rest
		digits, _, _ := bytes.Cut(rest[:min(20, len(rest))], []byte(" "))
		seq, err := strconv.Atoi(string(digits))
		if err != nil {
			continue
		}
		c.got = append(c.got, arrival{seq, time.Now()})
		if on != nil && !on(seq) {
			return false
		}
	}
}

func (c *client) overSocket(ctx context.Context, opened func(), on func(seq int) bool) error {
	conn, _, err := websocket.Dial(ctx, strings.Replace(c.url, "http", "ws", 1)+"/v1/logs/stream", &websocket.DialOptions{ //nolint:bodyclose // of a response that became a socket
		HTTPHeader: http.Header{"Authorization": {"Bearer " + c.key}}, Subprotocols: []string{"theazo.logs.v1"},
	})
	if err != nil {
		return err
	}
	defer func() { _ = conn.CloseNow() }()
	conn.SetReadLimit(1 << 20)
	filters := make([]string, 0, len(c.params))
	for name, values := range c.params {
		filters = append(filters, fmt.Sprintf("%q:%q", name, values[0]))
	}
	if err := conn.Write(ctx, websocket.MessageText, []byte(`{"type":"subscribe","id":"s","filters":{`+strings.Join(filters, ",")+`}}`)); err != nil {
		return err
	}
	for {
		_, message, err := conn.Read(ctx)
		if err != nil {
			return err
		}
		switch {
		case bytes.HasPrefix(message, []byte(`{"type":"ready"`)):
			opened()
		case bytes.HasPrefix(message, []byte(`{"type":"error"`)), bytes.HasPrefix(message, []byte(`{"type":"gap"`)):
			return fmt.Errorf("a socket got %s", message)
		default:
			if !c.take(message, on) {
				return nil
			}
		}
	}
}
