// Package execstream is how agentd-exec sends the output of one exec session
// to agentd, and is told what arrived for good. It imports the standard
// library alone, and little of that: agentd-exec is put into other people's
// images.
//
// agentd-exec posts to /v1/sandbox/exec with a chunked body, and reads the
// answer while it still sends (both directions are streams of frames):
//
//	request:   Magic, then frames        answer (200, at once):  frames
//	           H  hello, JSON: first            A  stdout(8) stderr(8): so much is durable
//	           1  stdout: data                  D  the session is durable, its end included
//	           2  stderr: data
//	           X  exit, JSON: last
//
//	frame:  type(1) length(4) payload         data:  offset(8) microseconds(8) bytes
//
// Numbers are big endian. An offset counts the bytes of its stream from the
// session's beginning; one that is larger than what came before says that bytes
// were dropped, one that is smaller that they are sent again. After a broken
// connection the sender connects anew, says hello with the same id and goes on
// from the first byte that was not acknowledged: agentd passes over what it has.
package execstream

import (
	"encoding/binary"
	"errors"
	"io"
	"time"
)

// Path of the endpoint that takes a session.
const Path = "/v1/sandbox/exec"

// Magic begins a request: the protocol and its version.
const Magic = "THZEXEC1"

// Types of frames.
const (
	TypeHello  = 'H'
	TypeStdout = '1'
	TypeStderr = '2'
	TypeExit   = 'X'
	TypeAck    = 'A'
	TypeDone   = 'D'
)

// MaxPayload is the largest payload of a frame; whoever gets a larger one
// hangs up. MaxData is what it leaves for bytes of output.
const (
	MaxPayload = 64 << 10
	dataHeader = 16
	MaxData    = MaxPayload - dataHeader
)

// Hello says what the session is.
type Hello struct {
	ID        string    `json:"execId"` // the same when it connects anew
	Command   []string  `json:"command"`
	Agent     string    `json:"agentId,omitempty"`
	Session   string    `json:"sessionId,omitempty"`
	TTY       bool      `json:"tty,omitempty"` // all output comes as stdout
	StartedAt time.Time `json:"startedAt"`
}

// Exit says how it ended.
type Exit struct {
	Code       int       `json:"code"`
	Signal     string    `json:"signal,omitempty"` // that ended it, such as SIGKILL
	DurationMS int64     `json:"durationMs"`
	EndedAt    time.Time `json:"endedAt"`
	// How long the streams were; what did not come of them was dropped.
	Stdout int64 `json:"stdoutBytes"`
	Stderr int64 `json:"stderrBytes"`
}

// AppendFrame appends a frame.
func AppendFrame(b []byte, kind byte, payload []byte) []byte {
	b = binary.BigEndian.AppendUint32(append(b, kind), uint32(len(payload))) //nolint:gosec // at most MaxPayload
	return append(b, payload...)
}

// AppendData appends a frame of output.
func AppendData(b []byte, kind byte, offset int64, at time.Time, data []byte) []byte {
	b = binary.BigEndian.AppendUint32(append(b, kind), uint32(dataHeader+len(data))) //nolint:gosec // at most MaxPayload
	b = binary.BigEndian.AppendUint64(b, uint64(offset))                             //nolint:gosec // not negative
	b = binary.BigEndian.AppendUint64(b, uint64(at.UnixMicro()))
	return append(b, data...)
}

// Data is the payload of a frame of output.
type Data struct {
	Offset int64
	At     time.Time
	Bytes  []byte
}

// ParseData reads a frame of output. The bytes are the payload's.
func ParseData(payload []byte) (Data, error) {
	if len(payload) < dataHeader {
		return Data{}, errors.New("exec stream: a frame of output is too short")
	}
	d := Data{
		Offset: int64(binary.BigEndian.Uint64(payload)),                             //nolint:gosec // checked below
		At:     time.UnixMicro(int64(binary.BigEndian.Uint64(payload[8:16]))).UTC(), //nolint:gosec // any value is a time
		Bytes:  payload[dataHeader:],
	}
	if d.Offset < 0 || d.Offset > 1<<62 {
		return Data{}, errors.New("exec stream: an offset is out of range")
	}
	return d, nil
}

// AppendAck appends an acknowledgement.
func AppendAck(b []byte, stdout, stderr int64) []byte {
	b = append(b, TypeAck, 0, 0, 0, 16)
	b = binary.BigEndian.AppendUint64(b, uint64(stdout))    //nolint:gosec // not negative
	return binary.BigEndian.AppendUint64(b, uint64(stderr)) //nolint:gosec // not negative
}

// ParseAck reads an acknowledgement.
func ParseAck(payload []byte) (stdout, stderr int64, err error) {
	if len(payload) != 16 {
		return 0, 0, errors.New("exec stream: an acknowledgement has a wrong length")
	}
	return int64(binary.BigEndian.Uint64(payload)), int64(binary.BigEndian.Uint64(payload[8:])), nil //nolint:gosec // the sender checks them
}

// ReadFrame reads a frame into buf, which grows to MaxPayload at most, and
// returns its payload. io.EOF: the stream ended between two frames.
func ReadFrame(r io.Reader, buf []byte) (kind byte, payload []byte, err error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, buf, err
	}
	n := int(binary.BigEndian.Uint32(head[1:]))
	if n > MaxPayload {
		return 0, buf, errTooLarge
	}
	if cap(buf) < n {
		buf = make([]byte, n)
	}
	if _, err := io.ReadFull(r, buf[:n]); err != nil {
		return 0, buf, noEOF(err)
	}
	return head[0], buf[:n], nil
}

var errTooLarge = errors.New("exec stream: a frame is too large")

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
