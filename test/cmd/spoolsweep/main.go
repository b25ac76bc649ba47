// Command spoolsweep kills writers of a spool at every kind of call that changes
// the disk, and cuts the power under others, many times; it prints what that
// found as FIGURE lines and fails where anything was lost or repeated.
//
//	go run ./test/cmd/spoolsweep -kills 10000 -cuts 5000
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"time"

	"github.com/theazo/observability/test/spoolfaults"
)

func main() {
	if spoolfaults.Main() {
		return
	}
	s := sweep{out: os.Stdout, errors: os.Stderr}
	flag.IntVar(&s.kills, "kills", 1000, "how often writers are killed")
	flag.IntVar(&s.cuts, "cuts", 500, "how often the power is cut (needs root)")
	flag.IntVar(&s.orders, "orders", 20, "how many writers' system calls are checked for their order")
	seconds := flag.Int("seconds", 0, "stop after so many seconds, whatever was done by then; 0: not before all is done")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if *seconds > 0 {
		s.until = time.Now().Add(time.Duration(*seconds) * time.Second)
	}
	if err := s.run(ctx); err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "spoolsweep:", err)
		stop()
		os.Exit(1) //nolint:gocritic // stop was called
	}
}

type sweep struct {
	kills, cuts, orders int
	until               time.Time
	out, errors         io.Writer
}

func (s *sweep) over() bool { return !s.until.IsZero() && time.Now().After(s.until) }

// note tells of progress, beside the figures.
func (s *sweep) note(format string, args ...any) {
	_, _ = fmt.Fprintf(s.errors, format+"\n", args...)
}

func (s *sweep) run(ctx context.Context) (err error) {
	dir, err := os.MkdirTemp("", "spoolsweep-")
	if err != nil {
		return err
	}
	defer func() {
		if err == nil { // else it is kept to look at
			err = os.RemoveAll(dir)
		}
	}()
	return errors.Join(s.killing(ctx, dir), s.cutting(ctx, dir), s.ordering(ctx, dir))
}

func (s *sweep) killing(ctx context.Context, dir string) error {
	seed := rand.Uint64() //nolint:gosec // not a secret
	s.note("kills: seed %d, in %s", seed, dir)
	k := &spoolfaults.Killer{Dir: dir, Lives: 10, Random: rand.New(rand.NewPCG(seed, 1))} //nolint:gosec // a seed makes it the same again
	var found spoolfaults.Sweep
	for found.Faults < s.kills && !s.over() && found.Good() {
		if err := k.Spool(ctx, &found); err != nil {
			return err
		}
		if found.Spools%20 == 0 {
			s.note("kills: %d of %d", found.Faults, s.kills)
		}
	}
	return s.report("kills", &found)
}

// cutBatch is how many cuts one file system image takes.
const cutBatch = 100

func (s *sweep) cutting(ctx context.Context, dir string) error {
	var found spoolfaults.Sweep
	for batch := 0; found.Faults < s.cuts && !s.over() && found.Good(); batch++ {
		c := &spoolfaults.Cuts{
			Dir: filepath.Join(dir, fmt.Sprintf("cuts%d", batch)), Cuts: min(cutBatch, s.cuts-found.Faults), Lives: 6,
			Seed: rand.Uint64(), //nolint:gosec // not a secret
		}
		if err := os.Mkdir(c.Dir, 0o700); err != nil {
			return err
		}
		some, err := c.Run(ctx)
		if err != nil {
			return err
		}
		if found.Merge(some); found.Good() {
			if err := os.RemoveAll(c.Dir); err != nil {
				return err
			}
		}
		s.note("cuts: %d of %d", found.Faults, s.cuts)
	}
	return s.report("cuts", &found)
}

func (s *sweep) ordering(ctx context.Context, dir string) error {
	var all spoolfaults.Order
	for i := range s.orders {
		if s.over() {
			break
		}
		o, err := spoolfaults.CheckOrder(ctx, filepath.Join(dir, fmt.Sprintf("order%d", i/5)))
		if err != nil {
			return err
		}
		all.Merge(o)
	}
	s.figure("spool_order_rotations", float64(all.Rotations+all.Copies))
	s.figure("spool_order_violations", float64(len(all.Violations)))
	if len(all.Violations) > 0 {
		return fmt.Errorf("order of system calls: %s", all.Violations[0])
	}
	return nil
}

func (s *sweep) figure(name string, value float64) {
	_, _ = fmt.Fprintf(s.out, "FIGURE %s %g\n", name, value)
}

// report prints what was found. Without a fault in n runs, the chance of one is
// below 3/n, at 95 % confidence.
func (s *sweep) report(what string, found *spoolfaults.Sweep) error {
	if found.Faults == 0 && found.Good() {
		return nil // none was asked for
	}
	s.figure(what, float64(found.Faults))
	s.figure(what+"_lost", float64(found.Lost))
	s.figure(what+"_duplicated", float64(found.Twice))
	s.figure(what+"_wrong", float64(len(found.Wrong)))
	if found.Good() && found.Faults > 0 {
		s.figure(what+"_fault_chance_below", 3/float64(found.Faults))
	}
	s.note("%s: %d appends in %d spools, %d records gave way; at %v", what, found.Accepted, found.Spools, found.GaveWay, found.Points)
	if !found.Good() {
		return fmt.Errorf("%s: %d lost, %d repeated, %q", what, found.Lost, found.Twice, found.Wrong)
	}
	return nil
}
