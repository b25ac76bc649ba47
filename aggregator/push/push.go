package push

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/theazo/observability/shared/frame"
	"github.com/theazo/observability/shared/otlp"
	"github.com/theazo/observability/shared/telemetry"
)

// Node is the node of pushed records, in their nodeId.
const Node telemetry.NodeID = "api"

// Limits of one request.
const (
	MaxBody    = otlp.MaxBody    // bytes, inflated
	MaxRecords = otlp.MaxRecords // lines, spans or metric points
)

// storeWithin is how long a request waits for its commit: less than the five
// seconds after which an absent database has to be told.
const storeWithin = 4500 * time.Millisecond

// Submitter commits frames and returns one outcome for each. It numbers those
// of epoch 0 by itself.
type Submitter interface {
	// Admit takes one request of an organisation: rate_limited where there were
	// too many.
	Admit(org telemetry.OrgID) error
	Submit(ctx context.Context, frames []*frame.Received) ([]frame.Outcome, error)
}

// Keys remembers idempotency keys.
type Keys interface {
	// ClaimKey returns the epoch of the frames of the request that a key stands
	// for, and that request's body: the given ones where the key is new.
	ClaimKey(ctx context.Context, scope telemetry.Scope, key [sha256.Size]byte, epoch uint64, body [sha256.Size]byte) (uint64, [sha256.Size]byte, error)
}

// Config of an Intake.
type Config struct {
	Submitter  Submitter
	Keys       Keys
	Log        hclog.Logger
	Registerer prometheus.Registerer // nil: metrics are kept to ourselves
	// Content keeps the content of model messages (prompts, answers) in OTLP.
	Content bool
}

// Intake takes pushed records. It is safe for concurrent use.
type Intake struct {
	Config
	metrics *metrics
	memory  memory
}

// New makes an intake.
func New(c Config) (*Intake, error) {
	if c.Submitter == nil || c.Keys == nil {
		return nil, errors.New("push: needs a submitter and keys")
	}
	if c.Log == nil {
		c.Log = hclog.NewNullLogger()
	}
	m, err := newMetrics(c.Registerer)
	if err != nil {
		return nil, err
	}
	return &Intake{Config: c, metrics: m}, nil
}

// format is how a body is encoded.
type format uint8

const (
	lines    format = iota // NDJSON
	document               // JSON: a list of lines, one line, or OTLP
	protobuf               // OTLP
)

// Push stores the records of a request and returns when they are committed:
// the body of the answer, its type, and whether everything had been stored
// before. Which records they are is said by the path and the Content-Type.
//
// What is too large has an http.MaxBytesError in its chain, and a type or
// encoding that is not known http.ErrNotSupported.
func (in *Intake) Push(ctx context.Context, scope telemetry.Scope, r *http.Request) (body []byte, contentType string, repeated bool, err error) {
	signal := signalOf(r.URL.Path)
	defer func() { in.metrics.done(signal, err) }()
	t := &taking{Intake: in, scope: scope, signal: signal, received: time.Now().UTC().Truncate(time.Microsecond)}
	if t.key, err = idempotencyKey(r.Header); err != nil {
		return nil, "", false, err
	}
	if t.format, err = formatOf(r, signal); err != nil {
		return nil, "", false, err
	}
	hold := in.memory.hold(scope.Org)
	defer hold.release()
	if t.body, err = hold.body(r.Header.Get("Content-Encoding"), r.Body); err != nil {
		return nil, "", false, err
	}
	// What it becomes is held as well.
	if err := hold.grow(decodedRatio * len(t.body)); err != nil {
		return nil, "", false, err
	}
	if strings.HasPrefix(r.URL.Path, otlpPrefix) || signal != otlp.Logs || t.format == protobuf || t.format == document && isOTLP(t.body) {
		return t.otlp(ctx)
	}
	return t.lines(ctx)
}

// taking is one request on its way.
type taking struct {
	*Intake
	scope    telemetry.Scope
	signal   otlp.Signal
	format   format
	key      string // of its sender, or none
	body     []byte
	received time.Time
}

// otlpPrefix is of the paths that take nothing but OTLP.
const otlpPrefix = "/otlp/"

func signalOf(path string) otlp.Signal {
	switch {
	case strings.HasSuffix(path, "/traces"):
		return otlp.Traces
	case strings.HasSuffix(path, "/metrics"):
		return otlp.Metrics
	}
	return otlp.Logs
}

func formatOf(r *http.Request, signal otlp.Signal) (format, error) {
	name, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";")
	plain := signal == otlp.Logs && !strings.HasPrefix(r.URL.Path, otlpPrefix)
	switch name = strings.ToLower(strings.TrimSpace(name)); {
	case name == "application/x-protobuf", name == "application/protobuf":
		return protobuf, nil
	case name == "application/json":
		return document, nil
	case plain && (name == "application/x-ndjson" || name == "application/ndjson" || name == "application/jsonl"):
		return lines, nil
	}
	allowed := "application/x-protobuf or application/json (OTLP)"
	if plain {
		allowed = "application/x-ndjson, application/json, or for OTLP application/x-protobuf"
	}
	return 0, &telemetry.Failure{Code: telemetry.InvalidRequest, Message: "The Content-Type must be " + allowed + ".", Cause: http.ErrNotSupported}
}

// isOTLP reports whether a JSON body is an export request, and not one line.
func isOTLP(body []byte) bool {
	var top struct {
		Camel *json.RawMessage `json:"resourceLogs"`
		Snake *json.RawMessage `json:"resource_logs"`
	}
	return checkDepth(body, maxDepth) == nil && json.Unmarshal(body, &top) == nil && (top.Camel != nil || top.Snake != nil)
}

// maxKey is the longest idempotency key.
const maxKey = 255

func idempotencyKey(h http.Header) (string, error) {
	values := h.Values("Idempotency-Key")
	if len(values) == 0 {
		return "", nil
	}
	key := values[0]
	printable := strings.IndexFunc(key, func(r rune) bool { return r < ' ' || r > '~' }) < 0
	if len(values) > 1 || key == "" || len(key) > maxKey || !printable {
		f := telemetry.Failf(telemetry.InvalidRequest, "Idempotency-Key must be given once and have 1 to %d printable ASCII characters.", maxKey)
		f.Fields = []telemetry.FieldError{{Field: "Idempotency-Key", Detail: "is not valid"}}
		return "", f
	}
	return key, nil
}

// store commits frames; repeated: all of them had been before.
func (t *taking) store(ctx context.Context, frames []*frame.Received) (repeated bool, err error) {
	if len(frames) == 0 {
		return false, nil
	}
	if err := t.Submitter.Admit(t.scope.Org); err != nil {
		return false, err
	}
	ctx, cancel := context.WithTimeout(ctx, storeWithin)
	defer cancel()
	if t.key != "" {
		if err := t.claim(ctx, frames); err != nil {
			return false, err
		}
	}
	outcomes, err := t.Submitter.Submit(ctx, frames)
	if err != nil {
		return false, fmt.Errorf("push: store %d frames of %s: %w", len(frames), t.scope, err)
	}
	repeated = t.key != ""
	for i, o := range outcomes {
		if o.Verdict == frame.Committed {
			repeated = false
			t.metrics.records.WithLabelValues(t.signal.String()).Add(float64(frames[i].Count))
		}
	}
	return repeated, nil
}

// frame makes a frame of this request; its epoch and sequence come later.
func (t *taking) frame(lane telemetry.Lane, count int, body []byte) *frame.Received {
	f := &frame.Received{Node: Node, ReceivedAt: t.received}
	f.Org, f.Env, f.Lane, f.Class, f.Body = t.scope.Org, t.scope.Env, lane, telemetry.Normal, body
	f.Count = uint32(count) //nolint:gosec // at most MaxRecords
	return f
}
