package intake

import (
	"encoding/base64"
	"fmt"

	"github.com/theazo/observability/agentd/source"
	"github.com/theazo/observability/shared/telemetry"
)

// KeepRaw says when the exact bytes of a line are kept beside its message.
type KeepRaw uint8

// The choices.
const (
	// RawNever keeps them only where the message could not hold them: bytes that
	// are not UTF-8, or NUL.
	RawNever KeepRaw = iota
	// RawChanged keeps them also where escape sequences were taken out.
	RawChanged
	// RawAlways keeps them of every line.
	RawAlways
)

// ParseKeepRaw reads "never", "changed" or "always".
func ParseKeepRaw(s string) (KeepRaw, error) {
	switch s {
	case "never":
		return RawNever, nil
	case "changed":
		return RawChanged, nil
	case "always":
		return RawAlways, nil
	}
	return 0, fmt.Errorf("%q is none of never, changed, always", s)
}

// maxRaw is how long a line may be for its bytes to be kept: in base64, and
// beside 8 KiB of other metadata, they fit.
const maxRaw = (telemetry.MaxMetadata - 8<<10) / 4 * 3

// wantsRaw reports whether the bytes of a line are to be kept. What a source
// asks for is kept where the message and a line break are not the same bytes.
func (in *Intake) wantsRaw(l *source.Line, changed change) bool {
	switch {
	case changed&changedBytes != 0, in.cfg.KeepRaw == RawAlways:
		return true
	case l.KeepRaw:
		return changed != 0 || l.Partial
	}
	return in.cfg.KeepRaw == RawChanged && changed&changedANSI != 0
}

// withRaw returns the metadata with the bytes of the line, its line break
// included, as "raw" in base64.
func (in *Intake) withRaw(metadata []byte, l *source.Line, done *marks) []byte {
	const name = `"raw":"`
	size := base64.StdEncoding.EncodedLen(len(l.Text)+1) + len(name) + 4
	if len(l.Text) > maxRaw || len(metadata)+size > telemetry.MaxMetadata {
		done[markRawTooLarge]++
		return metadata
	}
	b := in.raw[:0]
	if len(metadata) > 2 {
		b = append(append(b, metadata[:len(metadata)-1]...), ',')
	} else {
		b = append(b, '{')
	}
	b = append(b, name...)
	in.rawBytes = append(in.rawBytes[:0], l.Text...)
	if !l.Partial {
		in.rawBytes = append(in.rawBytes, '\n')
	}
	b = base64.StdEncoding.AppendEncode(b, in.rawBytes)
	b = append(b, '"', '}')
	in.raw = b
	return in.raw
}
