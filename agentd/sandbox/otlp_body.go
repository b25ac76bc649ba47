package sandbox

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/klauspost/compress/zstd"

	"github.com/theazo/observability/agentd/source"
	"github.com/theazo/observability/shared/otlp"
	"github.com/theazo/observability/shared/telemetry"
)

// flight is the memory for bodies of OTLP requests that are being read and
// inflated, of the node. A sandbox may hold half of what the others leave, so
// that there is always room for one more.
type flight struct {
	mu    sync.Mutex
	total int
	of    map[source.Target]int
}

// maxFlight is what all bodies may take; the largest single one needs half.
const maxFlight = 4 * otlp.MaxBody

// firstStep is how much a body takes before anything of it was read.
const firstStep = 16 << 10

// hold is one request's part of a flight.
type hold struct {
	flight *flight
	of     source.Target
	bytes  int
}

func (f *flight) hold(t source.Target) *hold { return &hold{flight: f, of: t} }

// grow takes n bytes more.
func (h *hold) grow(n int) error {
	f := h.flight
	f.mu.Lock()
	defer f.mu.Unlock()
	own := f.of[h.of]
	if own+n > (maxFlight-(f.total-own))/2 {
		return &telemetry.Failure{
			Code: telemetry.RateLimited, RetryAfter: retryAfter, Message: "Too many requests of this sandbox or node are being read at the same time.",
		}
	}
	if f.of == nil {
		f.of = map[source.Target]int{}
	}
	f.of[h.of] = own + n
	f.total += n
	h.bytes += n
	return nil
}

// shrink gives n bytes back.
func (h *hold) shrink(n int) {
	if n == 0 {
		return
	}
	f := h.flight
	f.mu.Lock()
	defer f.mu.Unlock()
	h.bytes -= n
	f.total -= n
	if f.of[h.of] -= n; f.of[h.of] == 0 {
		delete(f.of, h.of)
	}
}

// release gives everything back.
func (h *hold) release() { h.shrink(h.bytes) }

// readAll reads at most otlp.MaxBody bytes, as many as expected if that is not
// 0. Memory is taken as it comes in, not as it is announced.
func (h *hold) readAll(from io.Reader, expected int) ([]byte, error) {
	step := firstStep
	if expected > 0 {
		step = min(expected, firstStep) + 1 // the one that tells its end
	}
	var b []byte
	for {
		if len(b) == cap(b) {
			if err := h.grow(step); err != nil {
				return nil, err
			}
			b = append(make([]byte, 0, cap(b)+step), b...)
			step = min(cap(b), otlp.MaxBody+1-cap(b))
		}
		n, err := from.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		switch {
		case len(b) > otlp.MaxBody:
			return nil, tooLarge(otlp.MaxBody)
		case errors.Is(err, io.EOF):
			return b, nil
		case err != nil:
			return nil, err
		}
	}
}

// body reads a body and undoes its encoding. Nothing is allocated because of
// what a compressed body says of its size.
func (h *hold) body(encoding string, from io.Reader, expected int) ([]byte, error) {
	switch strings.ToLower(encoding) {
	case "", "identity":
		b, err := h.readAll(from, expected)
		return b, bodyError(err, "The body ended early or came too slowly.")
	case "gzip", "x-gzip":
		z, err := gzip.NewReader(from)
		if err != nil {
			return nil, bodyError(err, "The body is not gzip, as its encoding says.")
		}
		b, err := h.readAll(z, 0)
		return b, bodyError(err, "The body is not sound gzip, or ended early.")
	case "zstd":
		b, err := h.readAll(from, expected)
		if err != nil {
			return nil, bodyError(err, "The body ended early or came too slowly.")
		}
		b, err = h.zstd(b)
		return b, bodyError(err, fmt.Sprintf("The body is not sound zstd, or becomes larger than %d bytes.", otlp.MaxBody))
	}
	return nil, &telemetry.Failure{Code: telemetry.InvalidRequest, Message: "The encoding of the body is none of gzip, zstd, identity.", Cause: errEncoding}
}

// A body is taken to grow at most that much, until it is found to grow more.
const usualRatio, usualExtra = 64, 64 << 10

// maxZstdWindow is what encoders may announce. Nothing is allocated for it.
const maxZstdWindow = 128 << 20

// zstd inflates into memory that was taken before.
func (h *hold) zstd(b []byte) ([]byte, error) {
	var head zstd.Header
	if head.Decode(b) == nil && head.HasFCS && head.FrameContentSize > otlp.MaxBody {
		return nil, tooLarge(otlp.MaxBody)
	}
	for size := min(usualRatio*len(b)+usualExtra, otlp.MaxBody); ; size = otlp.MaxBody {
		if err := h.grow(size); err != nil {
			return nil, err
		}
		out, err := inflate(b, size)
		switch {
		case err == nil:
			return out, nil
		case size < otlp.MaxBody: // not every error that means "too small" says so
			h.shrink(size)
		case errors.Is(err, zstd.ErrDecoderSizeExceeded):
			return nil, tooLarge(otlp.MaxBody)
		default:
			return nil, err
		}
	}
}

// inflate makes at most that many bytes, and allocates little more: DecodeAll
// has no window of its own, what it has made so far is the window.
func inflate(b []byte, most int) ([]byte, error) {
	z, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecodeAllCapLimit(true),
		zstd.WithDecoderMaxMemory(maxZstdWindow), zstd.WithDecoderMaxWindow(maxZstdWindow))
	if err != nil {
		return nil, err
	}
	defer z.Close()
	return z.DecodeAll(b, make([]byte, 0, most))
}

// bodyError keeps a refusal of ours, and says otherwise in words what is wrong
// with the body.
func bodyError(err error, said string) error {
	if _, ours := errors.AsType[*telemetry.Failure](err); err == nil || ours {
		return err
	}
	return &telemetry.Failure{Code: telemetry.InvalidRequest, Message: said, Cause: err}
}
