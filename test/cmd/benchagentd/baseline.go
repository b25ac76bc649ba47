package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/theazo/observability/test/workload"
)

// baseline is what two simple programs need for the same files, per million
// lines, measured in the same minute on the same machine.
type baseline struct{ decode, compress time.Duration }

// baselineBytes is how much of the backlog the baselines look at.
const baselineBytes = 128 << 20

func (b *bench) baselines(l *logs) (baseline, error) {
	data, lines, err := head(l.dir, len(l.Messages))
	if err != nil {
		return baseline{}, err
	}
	per := func(d time.Duration) time.Duration { return time.Duration(float64(d) / float64(lines) * 1e6) }
	began := selfCPU()
	if err := decodeAll(data); err != nil {
		return baseline{}, err
	}
	decoded := selfCPU()
	err = compressTo(filepath.Join(b.dir, "baseline.zst"), data)
	return baseline{decode: per(decoded - began), compress: per(selfCPU() - decoded)}, err
}

func (o *baseline) note(b *bench, name string, cpu time.Duration) {
	lines := float64(b.backlogs[b.full.bytes].Lines) / 1e6
	ours := cpu.Seconds() / lines
	b.notef("%s: baselines of this run, CPU s per million of these lines: encoding/json alone %.2f (agentd does all of it in %.2f times that), zstd's fastest level and fsync alone %.2f (%.2f times)",
		name, o.decode.Seconds(), ours/o.decode.Seconds(), o.compress.Seconds(), ours/o.compress.Seconds())
}

// head returns the first whole lines of each file.
func head(dir string, files int) (data []byte, lines int, err error) {
	for i := range files {
		one, err := os.ReadFile(filepath.Join(dir, workload.FileName(i))) //nolint:gosec // our own file
		if err != nil {
			return nil, 0, err
		}
		if most := baselineBytes / files; len(one) > most {
			one = one[:bytes.LastIndexByte(one[:most], '\n')+1]
		}
		data = append(data, one...)
	}
	return data, bytes.Count(data, []byte{'\n'}), nil
}

// decodeAll decodes every line with encoding/json.
func decodeAll(data []byte) error {
	lines := bufio.NewScanner(bytes.NewReader(data))
	lines.Buffer(make([]byte, 1<<20), 1<<20)
	for lines.Scan() {
		var line struct {
			Log, Stream string
			Time        time.Time
		}
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			return err
		}
	}
	return lines.Err()
}

// compressTo writes data in pieces of 256 KiB, each compressed and flushed.
func compressTo(path string, data []byte) (err error) {
	f, err := os.Create(path) //nolint:gosec // our own file
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(path)) }()
	z, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return err
	}
	const piece = 256 << 10
	var out []byte
	for len(data) > 0 {
		n := min(len(data), piece)
		out = z.EncodeAll(data[:n], out[:0])
		if _, err := f.Write(out); err != nil {
			return err
		}
		if err := f.Sync(); err != nil {
			return err
		}
		data = data[n:]
	}
	return z.Close()
}

func selfCPU() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u) // cannot fail for ourselves
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// settings is what agentd says of the settings that it has.
func (b *bench) settings(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, b.agentd, "run", "-help").CombinedOutput() //nolint:gosec // our own program
	if len(out) == 0 {
		return "", fmt.Errorf("%s run -help: %w", b.agentd, err)
	}
	return string(out), nil
}
