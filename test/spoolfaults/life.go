package spoolfaults

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/theazo/observability/agentd/spool"
)

// Teller hears of what a life does.
type Teller interface {
	// Accepted says that an append has returned without an error.
	Accepted(n int)
	// Offered says that a frame came out of the spool: it is acknowledged next.
	Offered(o Offer)
}

// Offer is a frame as a receiver sees it.
type Offer struct {
	Org          string
	Epoch, First uint64
	Lane         uint8
	Count        uint32
	// Append is the number of the append that the frame came with; 0: it is a
	// tombstone; -1: its bytes are not what any append wrote.
	Append int
	Reason string // of a tombstone
}

// Organisations of a life: each append has a frame of each.
const (
	orgLogs   = "org_logs"
	orgEvents = "org_events"
)

// options let files be followed, copied and given up often.
func options(fs spool.FS, dir string) spool.Options {
	return spool.Options{
		Dir: dir, FS: fs, SegmentBytes: 16 << 10, Budget: 192 << 10, Floor: -1, SaveEvery: 2 * time.Millisecond,
		TombstoneBody: func(m spool.Missing) []byte { return []byte(m.Reason) },
	}
}

// countOf is how many records the frame of an append holds.
func countOf(org string, n int) uint32 {
	if org == orgEvents {
		return 1
	}
	return uint32(1 + n%3) //nolint:gosec // small
}

// bodyOf is the frame's body: its number, and noise that the number makes.
func bodyOf(org string, n int) []byte {
	random := rand.New(rand.NewPCG(uint64(n), uint64(len(org)))) //nolint:gosec // the same again is the point
	b := binary.LittleEndian.AppendUint64(nil, uint64(n))        //nolint:gosec // not negative
	size := 100 + random.IntN(300)
	if org == orgLogs {
		size = random.IntN(6000)
	}
	for range size / 8 {
		b = binary.LittleEndian.AppendUint64(b, random.Uint64())
	}
	return b
}

// offerOf checks a frame.
func offerOf(f *spool.Frame) Offer {
	o := Offer{Org: f.Org, Epoch: f.Epoch, Lane: f.Lane, First: f.First, Count: f.Count, Append: -1}
	if f.Tombstone {
		o.Append, o.Reason = 0, string(f.Body)
		return o
	}
	if len(f.Body) < 8 {
		return o
	}
	n := int(binary.LittleEndian.Uint64(f.Body)) //nolint:gosec // checked against all the rest
	if n > 0 && string(bodyOf(f.Org, n)) == string(f.Body) && countOf(f.Org, n) == f.Count {
		o.Append = n
	}
	return o
}

const positionKey = "n"

// appended is the number of the last append that a spool has.
func appended(s *spool.Spool) int {
	n, _ := strconv.Atoi(string(s.Positions()[positionKey]))
	return n
}

// live appends, offers and acknowledges, until so many appends are made or one
// of them fails. Now it is quicker than its receiver, now slower, so that frames
// give way at times.
func live(ctx context.Context, s *spool.Spool, appends int, tell Teller) error {
	n := appended(s)
	for end := n + appends; n < end; {
		n++
		logs := spool.Draft{Key: spool.Key{Org: orgLogs}, Class: uint8(n / 7 % 3), Count: countOf(orgLogs, n), Body: bodyOf(orgLogs, n)} //nolint:gosec // below 3
		event := spool.Draft{Key: spool.Key{Org: orgEvents}, Lane: 1, Class: 2, Count: countOf(orgEvents, n), Body: bodyOf(orgEvents, n)}
		if err := s.Append([]spool.Draft{logs, event}, map[string][]byte{positionKey: strconv.AppendInt(nil, int64(n), 10)}); err != nil {
			return fmt.Errorf("append %d: %w", n, err)
		}
		tell.Accepted(n)
		if n%5 == 0 && n%200 < 100 {
			if err := offer(ctx, s, 12, tell); err != nil {
				return err
			}
		}
	}
	return nil
}

// offer takes up to so many frames out of the spool.
func offer(ctx context.Context, s *spool.Spool, most int, tell Teller) error {
	for range most {
		st := s.Stats()
		if st.Lane[0].Unsent+st.Lane[1].Unsent == 0 {
			return nil
		}
		f, err := s.Next(ctx, nil)
		if err != nil {
			return err
		}
		o := offerOf(&f)
		tell.Offered(o)
		if err := s.Ack(f.Org, f.Epoch, f.Lane, f.Last()); err != nil {
			return err
		}
		if o.Append < 0 {
			return errors.New("a frame holds bytes that nobody wrote")
		}
	}
	return nil
}
