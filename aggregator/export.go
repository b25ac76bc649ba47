package aggregator

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/theazo/observability/aggregator/store"
	"github.com/theazo/observability/shared/logexport"
	"github.com/theazo/observability/shared/telemetry"
)

// Export says which lines are to be written, and how.
type Export struct {
	Scope  telemetry.Scope
	Query  telemetry.LogQuery
	Format logexport.Format
	// Progress is called about every second, and with the last state at the end.
	Progress func(ExportProgress)
}

// ExportProgress is how far an export is.
type ExportProgress struct {
	Lines int64
	Gaps  int
	Bytes int64
	At    time.Time // timestamp of the last line; zero: none yet
}

// progressEvery is how often an export tells how far it is.
const progressEvery = time.Second

// Run writes the lines and recorded gaps to w, from the configured database:
// that of a running aggregator or none.
func (x *Export) Run(ctx context.Context, cfg Config, w io.Writer, log hclog.Logger) (err error) {
	if err := cfg.needDatabase(log); err != nil {
		return err
	}
	dsn, giveBack, err := borrowDatabase(ctx, &cfg, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, giveBack()) }()
	if err := store.Migrate(ctx, dsn, log); err != nil {
		return err
	}
	o := cfg.storeOptions()
	o.DSN, o.Log = dsn, log
	// Where this machine has it, so that what was erased stays so. None is made:
	// that would be another than the aggregator's.
	if _, err := os.Stat(cfg.erasureKeyFile()); err == nil {
		if o.ErasureKey, err = store.OpenErasureKey(cfg.erasureKeyFile()); err != nil {
			return err
		}
	}
	s, err := store.Open(ctx, o)
	if err != nil {
		return err
	}
	defer s.Close()
	if _, err := s.Organisation(ctx, x.Scope); err != nil {
		return err
	}
	return x.write(ctx, s, w)
}

func (x *Export) write(ctx context.Context, s *store.Store, w io.Writer) error {
	counted := &counter{w: w}
	out := logexport.NewWriter(counted, x.Format)
	var at, told time.Time
	tell := func(gaps int) {
		told = time.Now()
		x.Progress(ExportProgress{Lines: out.Lines(), Gaps: gaps, Bytes: counted.n, At: at})
	}
	first := x.Query
	first.Limit, first.Count = 1, telemetry.CountNone
	head, err := s.QueryLogs(ctx, x.Scope, &first) // for the gaps
	if err != nil {
		return err
	}
	err = s.ExportLogs(ctx, x.Scope, &first, func(entries []telemetry.LogEntry) error {
		for i := range entries {
			if err := out.Entry(&entries[i]); err != nil {
				return fmt.Errorf("write the export: %w", err)
			}
			at = entries[i].Timestamp
		}
		if time.Since(told) > progressEvery {
			tell(0)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for i := range head.Gaps {
		if err := out.Gap(&head.Gaps[i]); err != nil {
			return fmt.Errorf("write the export: %w", err)
		}
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("write the export: %w", err)
	}
	tell(len(head.Gaps))
	return nil
}

// counter counts what goes to w.
type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n += int64(n)
	return n, err
}
