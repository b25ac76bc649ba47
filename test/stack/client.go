package stack

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Client speaks the API as any program would.
type Client struct {
	URL, Key string
}

// Entry is the part of a log entry that tests look at.
type Entry struct {
	ID        string    `json:"id"`
	Timestamp time.Time `json:"timestamp"`
	Level     string    `json:"level"`
	Agent     string    `json:"agentId"`
	Session   string    `json:"sessionId"`
	Stream    string    `json:"stream"`
	Message   string    `json:"message"`
	Truncated bool      `json:"truncated"`
}

// Page is an answer of GET /v1/logs.
type Page struct {
	Data         []Entry          `json:"data"`
	Total        int64            `json:"total"`
	HasMore      bool             `json:"hasMore"`
	Cursor       string           `json:"cursor"`
	StreamCursor string           `json:"streamCursor"`
	Gaps         []map[string]any `json:"gaps"`
}

// StatusError is an answer other than 200.
type StatusError struct {
	Status int
	Body   string
}

func (e *StatusError) Error() string { return fmt.Sprintf("status %d: %.300s", e.Status, e.Body) }

func (c *Client) do(ctx context.Context, path string, header map[string]string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.URL+path, nil)
	if err != nil {
		return nil, err
	}
	if c.Key != "" {
		req.Header.Set("Authorization", "Bearer "+c.Key)
	}
	for k, v := range header {
		req.Header.Set(k, v)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		b, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
		_ = resp.Body.Close()
		return nil, &StatusError{resp.StatusCode, string(b)}
	}
	return resp, nil
}

// Get asks for a path and reads the answer into to, which may be nil.
func (c *Client) Get(ctx context.Context, path string, to any) error {
	resp, err := c.do(ctx, path, nil)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if to == nil {
		_, err = io.Copy(io.Discard, resp.Body)
		return err
	}
	return json.NewDecoder(resp.Body).Decode(to)
}

// Logs asks for one page; params are name, value, name, value, ….
func (c *Client) Logs(ctx context.Context, params ...string) (Page, error) {
	var p Page
	return p, c.Get(ctx, "/v1/logs?"+query(params), &p)
}

func query(params []string) string {
	v := url.Values{}
	for i := 0; i+1 < len(params); i += 2 {
		v.Set(params[i], params[i+1])
	}
	return v.Encode()
}

// AllLogs reads every page, oldest first.
func (c *Client) AllLogs(ctx context.Context, params ...string) ([]Entry, error) {
	var all []Entry
	params = append([]string{"limit", "1000", "order", "asc"}, params...)
	cursor := ""
	for {
		page := params
		if cursor != "" {
			page = append(slices.Clip(page), "cursor", cursor)
		}
		p, err := c.Logs(ctx, page...)
		if err != nil {
			return all, err
		}
		all = append(all, p.Data...)
		if !p.HasMore {
			return all, nil
		}
		cursor = p.Cursor
	}
}

// Event is one server-sent event.
type Event struct{ ID, Name, Data string }

// Stream reads server-sent events as a browser does and calls on for each.
// lastID is sent as Last-Event-ID and kept up to date. It returns when the
// connection ends or on returns false.
func (c *Client) Stream(ctx context.Context, path string, lastID *string, on func(Event) bool) error {
	header := map[string]string{"Accept": "text/event-stream"}
	if *lastID != "" {
		header["Last-Event-ID"] = *lastID
	}
	resp, err := c.do(ctx, path, header)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 4<<20)
	var e Event
	var data []string
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case lines.Text() == "":
			if e.ID != "" {
				*lastID = e.ID
			}
			if data != nil {
				e.Data = strings.Join(data, "\n")
				if !on(e) {
					return nil
				}
			}
			e, data = Event{}, nil
		case name == "id":
			e.ID = value
		case name == "event":
			e.Name = value
		case name == "data":
			data = append(data, value)
		}
	}
	return lines.Err()
}

// UnixGet asks for a path on a unix socket and reads the JSON answer into to.
func UnixGet(ctx context.Context, socket, path string, to any) error {
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://socket"+path, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	return json.NewDecoder(resp.Body).Decode(to)
}
