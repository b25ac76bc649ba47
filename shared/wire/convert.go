package wire

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/theazo/observability/shared/frame"
	"github.com/theazo/observability/shared/telemetry"
)

// FrameToWire converts a frame; the body is shared, not copied.
func FrameToWire(f *frame.Frame) *Frame {
	return &Frame{
		Organisation: string(f.Org), Test: f.Env == telemetry.Test, Lane: LaneToWire(f.Lane), Class: Class(f.Class) + 1,
		Epoch: f.Epoch, First: f.First, Count: f.Count, Tombstone: f.Tombstone, Body: f.Body,
	}
}

// FrameFromWire converts and checks a frame's header; the body is shared and
// not looked into.
func FrameFromWire(p *Frame) (frame.Frame, error) {
	lane, err := LaneFromWire(p.GetLane())
	if err != nil {
		return frame.Frame{}, err
	}
	f := frame.Frame{Body: p.GetBody(), Header: frame.Header{
		Org: telemetry.OrgID(p.GetOrganisation()), Lane: lane, Class: telemetry.Class(p.GetClass() - 1), //nolint:gosec // checked below
		Epoch: p.GetEpoch(), First: p.GetFirst(), Count: p.GetCount(), Tombstone: p.GetTombstone(),
	}}
	if p.GetTest() {
		f.Env = telemetry.Test
	}
	switch {
	case p.GetClass() < Class_CLASS_BULK || p.GetClass() > Class_CLASS_IMPORTANT:
		return f, fmt.Errorf("frame of unknown class %d", p.GetClass())
	case f.Epoch == 0 || f.First == 0 || f.Count == 0 || f.First > maxSeq-uint64(f.Count):
		return f, fmt.Errorf("frame of epoch %d says first %d and count %d", f.Epoch, f.First, f.Count)
	case f.Count > frame.MaxCount && !f.Tombstone:
		return f, fmt.Errorf("frame of %d records: at most %d are taken", f.Count, frame.MaxCount)
	case len(f.Body) > frame.MaxBody:
		return f, fmt.Errorf("frame of %d bytes: at most %d are taken", len(f.Body), frame.MaxBody)
	}
	if f.Org != "" {
		if err := telemetry.CheckID(string(f.Org)); err != nil {
			return f, fmt.Errorf("frame's organisation %w", err)
		}
	}
	return f, nil
}

// maxSeq keeps sequences within 40 bits, as log ids hold them.
const maxSeq = 1<<40 - 1

// LaneToWire converts a lane.
func LaneToWire(l telemetry.Lane) Lane { return Lane(l) + 1 }

// LaneFromWire converts a lane.
func LaneFromWire(l Lane) (telemetry.Lane, error) {
	if l < Lane_LANE_LOGS || l > Lane_LANE_EVENTS {
		return 0, fmt.Errorf("unknown lane %d", l)
	}
	return telemetry.Lane(l - 1), nil
}

func originToWire(o *telemetry.Origin) *Origin {
	return &Origin{
		Agent: string(o.Agent), Session: string(o.Session), User: string(o.User), Sandbox: string(o.Sandbox),
		Provider: uint32(o.Provider), Stream: uint32(o.Stream), Source: uint32(o.Source),
	}
}

func originFromWire(p *Origin) (telemetry.Origin, error) {
	if p.GetProvider() > uint32(telemetry.E2B) || p.GetStream() > uint32(telemetry.Stderr) || p.GetSource() > uint32(telemetry.SourceModel) {
		return telemetry.Origin{}, fmt.Errorf("unknown provider %d, stream %d or source %d", p.GetProvider(), p.GetStream(), p.GetSource())
	}
	o := telemetry.Origin{
		Agent: telemetry.AgentID(p.GetAgent()), Session: telemetry.SessionID(p.GetSession()), User: telemetry.UserID(p.GetUser()),
		Sandbox: telemetry.SandboxID(p.GetSandbox()), Provider: telemetry.Provider(p.GetProvider()), //nolint:gosec // checked above
		Stream: telemetry.Stream(p.GetStream()), Source: telemetry.LogSource(p.GetSource()), //nolint:gosec // checked above
	}
	return o, CheckOrigin(&o)
}

// CheckOrigin checks the ids of an origin that came from a node.
func CheckOrigin(o *telemetry.Origin) error {
	if err := telemetry.CheckID(string(o.Agent)); err != nil {
		return fmt.Errorf("agent id %w", err)
	}
	if err := checkOptionalID("session", string(o.Session)); err != nil {
		return err
	}
	if err := checkOptionalID("sandbox", string(o.Sandbox)); err != nil {
		return err
	}
	if o.User != "" {
		if err := telemetry.CheckUser(string(o.User)); err != nil {
			return fmt.Errorf("user id %w", err)
		}
	}
	return nil
}

func checkOptionalID(name, id string) error {
	if id == "" {
		return nil
	}
	if err := telemetry.CheckID(id); err != nil {
		return fmt.Errorf("%s id %w", name, err)
	}
	return nil
}

func checkText(name, s string) error { return checkLongText(name, s, maxText) }

func checkLongText(name, s string, most int) error {
	if len(s) > most {
		return fmt.Errorf("%s of %d bytes: at most %d are taken", name, len(s), most)
	}
	if !utf8.ValidString(s) {
		return fmt.Errorf("%s is not valid UTF-8", name)
	}
	if strings.IndexByte(s, 0) >= 0 {
		return fmt.Errorf("%s holds a NUL character", name)
	}
	return nil
}

func timeToWire(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

// timeFromWire keeps microseconds. Times that no calendar holds become the
// zero time, which callers refuse where a time is needed.
func timeFromWire(p *timestamppb.Timestamp) time.Time {
	if p == nil || !p.IsValid() {
		return time.Time{}
	}
	return p.AsTime().Truncate(time.Microsecond)
}
