package push

import (
	"compress/gzip"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/theazo/observability/shared/telemetry"
)

// maxHeld is what the bodies of all requests may take with what they become; the
// largest single one needs half.
const maxHeld = 96 << 20

// decodedRatio is what a body becomes, for each of its bytes, about.
const decodedRatio = 4

// firstStep is how much is taken before anything of a body was read.
const firstStep = 16 << 10

// window is what a zstd stream may look back, which is allocated.
const window = 8 << 20

// memory bounds what requests hold.
type memory struct {
	mu    sync.Mutex
	total int
	of    map[telemetry.OrgID]int
}

// hold is one request's part.
type hold struct {
	memory *memory
	of     telemetry.OrgID
	bytes  int
}

func (m *memory) hold(org telemetry.OrgID) *hold { return &hold{memory: m, of: org} }

// grow takes n bytes more. An organisation has half of what the others leave,
// so that there is always room for one more.
func (h *hold) grow(n int) error {
	m := h.memory
	m.mu.Lock()
	defer m.mu.Unlock()
	own := m.of[h.of]
	if own+n > (maxHeld-(m.total-own))/2 {
		return &telemetry.Failure{
			Code: telemetry.RateLimited, RetryAfter: time.Second, Message: "Too many requests are being read at the same time: send this one again.",
		}
	}
	if m.of == nil {
		m.of = map[telemetry.OrgID]int{}
	}
	m.of[h.of] = own + n
	m.total += n
	h.bytes += n
	return nil
}

// release gives everything back.
func (h *hold) release() {
	m := h.memory
	m.mu.Lock()
	defer m.mu.Unlock()
	m.total -= h.bytes
	if m.of[h.of] -= h.bytes; m.of[h.of] <= 0 {
		delete(m.of, h.of)
	}
}

// body reads a body and undoes its encoding. Nothing is allocated because of
// what a compressed body says of its size.
func (h *hold) body(encoding string, from io.Reader) ([]byte, error) {
	from = http.MaxBytesReader(nil, io.NopCloser(from), MaxBody)
	switch strings.ToLower(encoding) {
	case "", "identity":
		b, err := h.readAll(from)
		return b, bodyError(err, "The body ended early or came too slowly.")
	case "gzip", "x-gzip":
		z, err := gzip.NewReader(from)
		if err != nil {
			return nil, bodyError(err, "The body is not gzip, as its encoding says.")
		}
		b, err := h.readAll(z)
		return b, bodyError(err, "The body is not sound gzip, or ended early.")
	case "zstd":
		if err := h.grow(window); err != nil {
			return nil, err
		}
		z, err := zstd.NewReader(from, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(window))
		if err != nil {
			return nil, bodyError(err, "The body is not zstd, as its encoding says.")
		}
		defer z.Close()
		b, err := h.readAll(z)
		return b, bodyError(err, "The body is not sound zstd, ended early, or looks back further than 8 MiB.")
	}
	return nil, &telemetry.Failure{Code: telemetry.InvalidRequest, Message: "The Content-Encoding must be gzip, zstd or identity.", Cause: http.ErrNotSupported}
}

// readAll reads at most MaxBody bytes. Memory is taken as they come, not as
// they are announced.
func (h *hold) readAll(from io.Reader) ([]byte, error) {
	step := firstStep
	var b []byte
	for {
		if len(b) == cap(b) {
			if err := h.grow(step); err != nil {
				return nil, err
			}
			b = append(make([]byte, 0, cap(b)+step), b...)
			step = min(cap(b), MaxBody+1-cap(b))
		}
		n, err := from.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		switch {
		case len(b) > MaxBody:
			return nil, &http.MaxBytesError{Limit: MaxBody}
		case errors.Is(err, io.EOF):
			return b, nil
		case err != nil:
			return nil, err
		}
	}
}

// bodyError keeps a refusal of ours, and says otherwise in words what is wrong
// with the body.
func bodyError(err error, said string) error {
	if _, ours := errors.AsType[*telemetry.Failure](err); err == nil || ours {
		return err
	}
	if large, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return &telemetry.Failure{Code: telemetry.InvalidRequest, Message: "The body is larger than 8 MiB, or becomes so: send it in parts.", Cause: large}
	}
	return &telemetry.Failure{Code: telemetry.InvalidRequest, Message: said, Cause: err}
}
