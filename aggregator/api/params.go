package api

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/theazo/observability/shared/logquery"
	"github.com/theazo/observability/shared/telemetry"
)

var errEmpty = errors.New("is empty: leave it out or give it a value")

// maxList bounds how many values one filter takes.
const maxList = 100

// params reads query parameters and collects what is wrong with them, so that
// a caller hears of everything at once.
type params struct {
	values url.Values
	bad    []telemetry.FieldError
	unread *telemetry.Failure // the query that q holds
	// env is what the caller can see: a query that asks for the other one is
	// refused, and not answered with nothing. nil: it is compared elsewhere.
	env *telemetry.Environment
}

func (p *params) fail(name, format string, args ...any) {
	p.bad = append(p.bad, telemetry.FieldError{Field: name, Detail: fmt.Sprintf(format, args...)})
}

func (p *params) err() error {
	switch {
	case len(p.bad) > 0:
		return badFields(p.bad)
	case p.unread != nil:
		return p.unread
	}
	return nil
}

// one returns a parameter that may be given once, and whether it was.
func (p *params) one(name string) (string, bool) {
	v, given := p.values[name]
	switch {
	case !given:
		return "", false
	case len(v) > 1:
		p.fail(name, "is given %d times: give it once", len(v))
		return "", false
	case v[0] == "":
		p.fail(name, "%v", errEmpty)
		return "", false
	}
	return v[0], true
}

// number returns a whole number in [low, high].
func (p *params) number(name string, otherwise, low, high int, hint string) int {
	text, given := p.one(name)
	if !given {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < low || n > high || strconv.Itoa(n) != text {
		p.fail(name, "must be a whole number from %d to %d%s", low, high, hint)
		return otherwise
	}
	return n
}

// list returns the values of a parameter that may be repeated and may hold
// several values with commas between them, each read by parse.
func list[T comparable](p *params, name string, parse func(string) (T, error)) []T {
	var all []T
	for _, text := range p.values[name] {
		for value := range strings.SplitSeq(text, ",") {
			v, err := parse(value)
			if err != nil {
				p.fail(name, "%v", err)
				return nil
			}
			if !slices.Contains(all, v) {
				all = append(all, v)
			}
			if len(all) > maxList {
				p.fail(name, "has more than %d values", maxList)
				return nil
			}
		}
	}
	return all
}

// id makes a parser of ids out of a check.
func id[T ~string](check func(string) error) func(string) (T, error) {
	return func(s string) (T, error) { return T(s), check(s) }
}

// word makes a parser of words that refuses the empty one, which some
// enumerations have inside.
func word[T any](parse func(string) (T, error)) func(string) (T, error) {
	return func(s string) (T, error) {
		v, err := parse(s)
		if s == "" {
			err = errEmpty
		} else if err != nil {
			err = fmt.Errorf("is not valid: %w", err)
		}
		return v, err
	}
}

// filter reads the parameters of a telemetry.LogFilter.
func (p *params) filter() telemetry.LogFilter {
	f := telemetry.LogFilter{
		Sessions: list(p, "sessionId", id[telemetry.SessionID](telemetry.CheckID)),
		Agents:   list(p, "agentId", id[telemetry.AgentID](telemetry.CheckID)),
		Users:    list(p, "userId", id[telemetry.UserID](telemetry.CheckUser)),
		Nodes:    list(p, "nodeId", id[telemetry.NodeID](telemetry.CheckID)),
		Sandbox:  list(p, "sandboxId", id[telemetry.SandboxID](telemetry.CheckID)),
		Traces:   list(p, "traceId", id[telemetry.TraceID](telemetry.CheckID)),
		Spans:    list(p, "spanId", id[telemetry.SpanID](telemetry.CheckID)),
		Provider: list(p, "provider", word(telemetry.ParseProvider)),
		Streams:  list(p, "stream", word(telemetry.ParseStream)),
		Sources:  list(p, "source", word(telemetry.ParseLogSource)),
		Levels:   list(p, "level", word(telemetry.ParseLevel)),
	}
	if text, given := p.one("minLevel"); given {
		lowest, err := telemetry.ParseLevel(text)
		switch {
		case err != nil:
			p.fail("minLevel", "is not valid: %v", err)
		case p.values.Has("level"):
			p.fail("minLevel", "cannot stand beside level, which is exact: give one of them")
		case lowest > telemetry.Debug:
			for l := lowest; l < telemetry.NumLevels; l++ {
				f.Levels = append(f.Levels, l)
			}
		}
	}
	f.Search, _ = p.one("search")
	switch {
	case len(f.Search) > telemetry.MaxSearch:
		p.fail("search", "is longer than %d bytes", telemetry.MaxSearch)
	case !utf8.ValidString(f.Search) || strings.ContainsRune(f.Search, 0):
		p.fail("search", "must be UTF-8 text without NUL")
	}
	p.grammar(&f)
	return f
}

// grammar adds what q asks for to a filter.
func (p *params) grammar(f *telemetry.LogFilter) {
	text, given := p.one("q")
	if !given {
		return
	}
	if err := logquery.Parse(text, f); err != nil {
		p.unread = telemetry.Failf(telemetry.Unprocessable, "The query q cannot be read: %v.", err)
		at := telemetry.FieldError{Field: "q", Detail: err.Error()}
		if fault, ok := errors.AsType[*logquery.Error](err); ok {
			at.Position = fault.Character
		}
		p.unread.Fields = []telemetry.FieldError{at}
	}
	if p.env != nil && len(f.Envs) > 0 {
		if !slices.Contains(f.Envs, *p.env) {
			p.unread = telemetry.Failf(telemetry.Unprocessable, "The query q asks for another environment than %s, which is the key's: use a key of that environment.", *p.env)
			p.unread.Fields = []telemetry.FieldError{{Field: "q", Detail: "asks for another environment than the key's"}}
		}
		f.Envs = nil
	}
}

// moment reads a time parameter; the zero time where it is not given.
func (p *params) moment(name string, now time.Time) time.Time {
	text, given := p.one(name)
	if !given {
		return time.Time{}
	}
	t, err := parseTime(text, now)
	if err != nil {
		p.fail(name, "%v", err)
	}
	return t
}

var errTime = errors.New("is not a time: use 2026-09-01T10:00:00Z (RFC 3339), 2026-09-01 (midnight UTC), now, or -15m (s, m, h or d ago)")

// ParseTime reads a time as parameters of the API are written.
func ParseTime(text string, now time.Time) (time.Time, error) { return parseTime(text, now) }

// parseTime reads an RFC 3339 time, a date, "now", or how long ago: to the
// microsecond, in UTC, between the years 1 and 9999.
func parseTime(text string, now time.Time) (time.Time, error) {
	if len(text) > 64 {
		return time.Time{}, errTime
	}
	if text == "now" {
		return now.UTC().Truncate(time.Microsecond), nil
	}
	if ago, ok := strings.CutPrefix(text, "-"); ok {
		d, err := parseAgo(ago)
		if err != nil {
			return time.Time{}, err
		}
		return now.Add(-d).UTC().Truncate(time.Microsecond), nil
	}
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		t, err = time.Parse(time.DateOnly, text)
	}
	t = t.UTC().Truncate(time.Microsecond)
	if err != nil || t.IsZero() || t.Year() < 1 || t.Year() > 9999 { // the zero time is none
		return time.Time{}, errTime
	}
	return t, nil
}

// maxAgo is as far back as "-…" reaches: a hundred years.
const maxAgo = 100 * 366 * 24 * time.Hour

// parseAgo reads a duration such as 15m, 1h30m or 7d.
func parseAgo(text string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(text, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 16)
		if err != nil || time.Duration(n)*24*time.Hour > maxAgo {
			return 0, errTime
		}
		return time.Duration(n) * 24 * time.Hour, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 || d > maxAgo || text[0] < '0' || text[0] > '9' {
		return 0, errTime
	}
	return d, nil
}
