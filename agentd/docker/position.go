package docker

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/theazo/observability/shared/telemetry"
)

// Keys of this source's positions: one for each sandbox's log, one for each
// sandbox's life, and one for the engine's events.
const (
	logKey    = "log:"
	runKey    = "run:"
	eventsKey = "events"
)

// place is a record's place in a log.
type place struct {
	file *logFile
	off  int64
}

func (p place) before(q place) bool {
	return p.file.seq < q.file.seq || p.file.seq == q.file.seq && p.off < q.off
}

// placeNote is a place as it is written down.
type placeNote struct {
	Device uint64 `json:"dev"`
	Inode  uint64 `json:"ino"`
	Print  string `json:"fp"`
	Offset int64  `json:"off"`
}

func (p place) note() placeNote {
	return placeNote{Device: p.file.id.device, Inode: p.file.id.inode, Print: p.file.known(), Offset: p.off}
}

// logPosition says how far a log has been read: everything before the place
// was emitted, but for the lines that were open there.
type logPosition struct {
	placeNote
	Before string      `json:"before,omitempty"` // hash of the bytes before the offset
	Size   int64       `json:"size"`             // of the file when it was last looked at
	Last   time.Time   `json:"last,omitzero"`    // time of the last record
	Stdout *openLine   `json:"stdout,omitempty"`
	Stderr *openLine   `json:"stderr,omitempty"`
	API    *apiStreams `json:"api,omitempty"`   // read through the engine's API instead
	Cache  bool        `json:"cache,omitempty"` // a gap has said that the log is a cache
	Mute   bool        `json:"mute,omitempty"`  // a gap has said that nobody can read the log
}

// note returns the JSON of p. Most positions, of which each batch has one, are
// written without reflection.
func (p *logPosition) note() json.RawMessage {
	if p.Stdout != nil || p.Stderr != nil || p.API != nil || p.Cache || p.Mute || p.Last.IsZero() {
		return encode(p)
	}
	b := make([]byte, 0, 256)
	b = strconv.AppendUint(append(b, `{"dev":`...), p.Device, 10)
	b = strconv.AppendUint(append(b, `,"ino":`...), p.Inode, 10)
	b = append(append(append(b, `,"fp":"`...), p.Print...), '"') // hexadecimal
	b = strconv.AppendInt(append(b, `,"off":`...), p.Offset, 10)
	if p.Before != "" {
		b = append(append(append(b, `,"before":"`...), p.Before...), '"')
	}
	b = strconv.AppendInt(append(b, `,"size":`...), p.Size, 10)
	b = p.Last.AppendFormat(append(b, `,"last":"`...), time.RFC3339Nano)
	return append(b, `"}`...)
}

// openLine is a long line that had begun and not ended.
type openLine struct {
	From *placeNote `json:"from,omitempty"` // read again from here
	Skip int64      `json:"skip,omitempty"` // or dropped: its time, nanoseconds
}

// apiStreams is how far the engine's API was read.
type apiStreams struct {
	Stdout apiMark `json:"stdout,omitzero"`
	Stderr apiMark `json:"stderr,omitzero"`
}

// apiMark is the last record of one stream: its time, and its number among the
// stream's records of that time.
type apiMark struct {
	At time.Time `json:"at,omitzero"`
	N  int       `json:"n,omitempty"`
}

// runPosition is what has been told of a container's life.
type runPosition struct {
	Created   bool      `json:"created,omitempty"`
	Started   time.Time `json:"started,omitzero"`
	Exited    time.Time `json:"exited,omitzero"`  // after Started; zero: it runs
	Earlier   time.Time `json:"earlier,omitzero"` // when the run before this one ended
	Paused    bool      `json:"paused,omitempty"`
	Destroyed time.Time `json:"destroyed,omitzero"`
	// Told is the engine's time of the last event told: a replay goes on after it.
	Told   time.Time `json:"told,omitzero"`
	Silent bool      `json:"silent,omitempty"` // its driver keeps nothing, and a gap said so
	// Whom the records of a container are for that is gone when agentd is back.
	Who *whoNote `json:"who,omitempty"`
}

type whoNote struct {
	Org     telemetry.OrgID       `json:"org,omitempty"`
	Env     telemetry.Environment `json:"env"`
	Agent   telemetry.AgentID     `json:"agent"`
	Session telemetry.SessionID   `json:"session,omitempty"`
	User    telemetry.UserID      `json:"user,omitempty"`
}

// eventsPosition is how far the engine's events were told.
type eventsPosition struct {
	Since time.Time `json:"since"`
}

func encode(v any) json.RawMessage {
	b, err := json.Marshal(v)
	if err != nil {
		// Only our own plain structs come here.
		panic(fmt.Sprintf("docker: cannot encode a position: %v", err))
	}
	return b
}

var forget = json.RawMessage("null")
