// Command linegen prints numbered lines that check themselves: the entrypoint
// of test containers. It is static and needs nothing from its image.
//
//	n=17 c=5b2f9c01 xxxxxxxx…     the number, its CRC-32, padding up to -size
//
// With -stamp a line also has t=<nanoseconds since 1970> of its writing; with
// -mark F it begins with the marker of package workload, as line of file F.
package main

import (
	"bufio"
	"bytes"
	"flag"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"strconv"
	"time"
)

type options struct {
	n, size, stderrEvery, exitCode int
	mark                           int
	rate                           float64
	prefix                         string
	noNewline, nul, invalid, mib   bool
	stamp                          bool
	sleepBefore, sleepAfter        time.Duration
}

func main() {
	var o options
	flag.IntVar(&o.n, "n", 1, "how many lines")
	flag.Float64Var(&o.rate, "rate", 0, "lines a second; 0: as fast as possible")
	flag.IntVar(&o.size, "size", 0, "bytes of a line, without its newline; 0: no padding")
	flag.IntVar(&o.mark, "mark", -1, "number of the file whose line this pretends to be; -1: none")
	flag.StringVar(&o.prefix, "prefix", "", "text before each line")
	flag.BoolVar(&o.noNewline, "no-newline", false, "end the last line without a newline")
	flag.BoolVar(&o.nul, "nul", false, "put a NUL into each line")
	flag.BoolVar(&o.invalid, "invalid-utf8", false, "put bytes that are not UTF-8 into each line")
	flag.BoolVar(&o.mib, "one-mib-line", false, "make each line 1 MiB long")
	flag.BoolVar(&o.stamp, "stamp", false, "put the time of writing into each line")
	flag.IntVar(&o.stderrEvery, "stderr-every", 0, "write each k-th line to stderr; 0: none")
	flag.DurationVar(&o.sleepBefore, "sleep-before", 0, "wait before the first line")
	flag.DurationVar(&o.sleepAfter, "sleep-after", 0, "stay for so long after the last line")
	flag.IntVar(&o.exitCode, "exit-code", 0, "exit with this code")
	flag.Parse()
	if o.mib {
		o.size = 1 << 20
	}
	if err := o.run(os.Stdout, os.Stderr); err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "linegen:", err)
		os.Exit(1)
	}
	os.Exit(o.exitCode)
}

func (o *options) run(stdout, stderr io.Writer) error {
	wait(o.sleepBefore)
	out, errOut := bufio.NewWriterSize(stdout, 64<<10), bufio.NewWriterSize(stderr, 64<<10)
	flush := func() error {
		if err := out.Flush(); err != nil {
			return err
		}
		return errOut.Flush()
	}
	var line []byte
	start := time.Now()
	for i := 1; i <= o.n; i++ {
		if o.rate > 0 {
			due := start.Add(time.Duration(float64(i-1) / o.rate * float64(time.Second)))
			if early := time.Until(due); early > 0 {
				if err := flush(); err != nil {
					return err
				}
				wait(early)
			}
		}
		to := out
		if o.stderrEvery > 0 && i%o.stderrEvery == 0 {
			to = errOut
		}
		line = o.line(line[:0], i)
		if i < o.n || !o.noNewline {
			line = append(line, '\n')
		}
		if _, err := to.Write(line); err != nil {
			return err
		}
	}
	if err := flush(); err != nil {
		return err
	}
	wait(o.sleepAfter)
	return nil
}

// line appends the i-th line.
func (o *options) line(b []byte, i int) []byte {
	if o.mark >= 0 {
		b = fmt.Appendf(b, "#i%03ds%09d ", o.mark, i-1)
	}
	if o.prefix != "" {
		b = append(append(b, o.prefix...), ' ')
	}
	number := strconv.Itoa(i)
	b = fmt.Appendf(b, "n=%s c=%08x", number, crc32.ChecksumIEEE([]byte(number)))
	if o.stamp {
		b = fmt.Appendf(b, " t=%d", time.Now().UnixNano())
	}
	if o.nul {
		b = append(b, " nul=\x00."...)
	}
	if o.invalid {
		b = append(b, " bytes=\xff\xfe."...)
	}
	if room := o.size - len(b) - 1; room > 0 {
		b = append(append(b, ' '), bytes.Repeat([]byte{'x'}, room)...)
	}
	return b
}

func wait(d time.Duration) {
	if d > 0 {
		<-time.After(d)
	}
}
