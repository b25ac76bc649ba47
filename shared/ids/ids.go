package ids

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"strings"
	"time"

	"github.com/theazo/observability/shared/telemetry"
)

// encoding is Crockford's alphabet in lower case: no i, l, o, u, and sorted
// text is sorted bytes.
var encoding = base32.NewEncoding("0123456789abcdefghjkmnpqrstvwxyz").WithPadding(base32.NoPadding)

// New returns a random id: the prefix, an underscore and 20 characters.
func New(prefix string) string {
	var b [13]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return prefix + "_" + encoding.EncodeToString(b[:])[:20]
}

// Epoch returns a new random epoch for a spool; never 0.
func Epoch() uint64 {
	var b [8]byte
	for {
		_, _ = rand.Read(b[:]) // never fails (crypto/rand)
		if e := binary.BigEndian.Uint64(b[:]); e != 0 {
			return e
		}
	}
}

// AgentOf derives a stable agent id for a sandbox whose labels name none.
func AgentOf(p telemetry.Provider, sandbox telemetry.SandboxID) telemetry.AgentID {
	h := sha256.Sum256([]byte("agent\x00" + p.String() + "\x00" + string(sandbox)))
	return telemetry.AgentID("agt_" + encoding.EncodeToString(h[:])[:20])
}

// TraceOf derives the trace of an agent's spans that name none: all of one
// agent run are one trace.
func TraceOf(agent telemetry.AgentID) telemetry.TraceID {
	h := sha256.Sum256([]byte("trace\x00" + string(agent)))
	return telemetry.TraceID("trc_" + hex.EncodeToString(h[:16]))
}

// NewSpan returns a random span id.
func NewSpan() telemetry.SpanID {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return telemetry.SpanID("spn_" + hex.EncodeToString(b[:]))
}

// LogKey is what a log id holds.
type LogKey struct {
	Micros int64  // timestamp, microseconds since 1970
	Agent  uint16 // AgentHash of its agent
	Source uint64 // SourceHash of its node and epoch: 48 bits
	Seq    uint64 // below 2^40
}

// AgentHash shortens an agent id for LogKey.
func AgentHash(a telemetry.AgentID) uint16 {
	h := sha256.Sum256([]byte(a))
	return binary.BigEndian.Uint16(h[:])
}

// SourceHash shortens a node and epoch for LogKey, to 48 bits.
func SourceHash(n telemetry.NodeID, epoch uint64) uint64 {
	h := sha256.Sum256(binary.BigEndian.AppendUint64([]byte(n), epoch))
	return binary.BigEndian.Uint64(h[:]) >> 16
}

const logIDBytes = 7 + 2 + 6 + 5

// Log returns the id of a log entry: "log_" and 32 characters.
func Log(k LogKey) telemetry.LogID {
	var b [32]byte
	p := b[:0]
	us := uint64(k.Micros) ^ 1<<55                                                                             //nolint:gosec // two's complement: the flipped sign bit makes ids sort by time
	p = append(p, byte(us>>48), byte(us>>40), byte(us>>32), byte(us>>24), byte(us>>16), byte(us>>8), byte(us)) //nolint:gosec // byte by byte
	p = binary.BigEndian.AppendUint16(p, k.Agent)
	p = append(p, byte(k.Source>>40), byte(k.Source>>32), byte(k.Source>>24), byte(k.Source>>16), byte(k.Source>>8), byte(k.Source)) //nolint:gosec // byte by byte
	p = append(p, byte(k.Seq>>32), byte(k.Seq>>24), byte(k.Seq>>16), byte(k.Seq>>8), byte(k.Seq))                                    //nolint:gosec // byte by byte
	var text [36]byte
	copy(text[:], "log_")
	encoding.Encode(text[4:], p)
	return telemetry.LogID(text[:])
}

// ParseLog reads a log id.
func ParseLog(id string) (LogKey, error) {
	text, ok := strings.CutPrefix(id, "log_")
	if !ok || len(text) != encoding.EncodedLen(logIDBytes) {
		return LogKey{}, errors.New("is not a log id (log_ and 32 characters)")
	}
	b, err := encoding.DecodeString(text)
	if err != nil {
		return LogKey{}, errors.New("is not a log id (log_ and 32 characters)")
	}
	us := uint64(0)
	for _, c := range b[:7] {
		us = us<<8 | uint64(c)
	}
	k := LogKey{Micros: int64((us^1<<55)<<8) >> 8, Agent: binary.BigEndian.Uint16(b[7:])} //nolint:gosec // sign extension from 56 bits
	for _, c := range b[9:15] {
		k.Source = k.Source<<8 | uint64(c)
	}
	for _, c := range b[15:] {
		k.Seq = k.Seq<<8 | uint64(c)
	}
	return k, nil
}

// LogTime is the timestamp that a log id holds.
func (k LogKey) LogTime() time.Time { return time.UnixMicro(k.Micros).UTC() }
