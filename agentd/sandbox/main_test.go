package sandbox

import (
	"bufio"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"

	"go.uber.org/goleak"

	"github.com/theazo/observability/agentd/execclient"
)

// TestMain lets the test binary be agentd-exec, and a command for it to run.
func TestMain(m *testing.M) {
	switch os.Getenv("TEST_AS") {
	case "agentd-exec":
		_ = os.Setenv("TEST_AS", "noise")
		os.Exit(execclient.Main(os.Args[1:], "test"))
	case "noise":
		noise(os.Args[1], os.Args[2])
		os.Exit(7)
	}
	goleak.VerifyTestMain(m)
}

// noise writes blocks of odd bytes, one for each byte of its stdin, until that
// ends.
func noise(seed, size string) {
	n, _ := strconv.ParseUint(seed, 10, 64)
	bytes, _ := strconv.Atoi(size)
	blocks := newOdd(n, bytes)
	in := bufio.NewReader(os.Stdin)
	for {
		if _, err := in.ReadByte(); errors.Is(err, io.EOF) {
			return
		}
		stream, b := blocks.next()
		_, _ = []*os.File{os.Stdout, os.Stderr}[stream].Write(b)
	}
}

// odd makes the same odd blocks for the same seed.
type odd struct {
	r    *rand.Rand
	size int
}

func newOdd(seed uint64, size int) *odd {
	return &odd{r: rand.New(rand.NewPCG(seed, 2)), size: size}
}

func (o *odd) next() (stream int, b []byte) {
	pieces := []string{"plain text ", "\n", "\r\n", "\r", "\x1b[31mred\x1b[0m", "\x00", "\xff\xfe", "é", "\t", "\x1b[2K\x1b[1G", "{\"level\":\"error\"}\n"}
	if o.r.IntN(20) == 0 { // now and then much without a newline
		for range o.r.IntN(20 * o.size) {
			b = append(b, byte(o.r.IntN(256)|1<<6))
		}
	}
	for len(b) < o.size {
		b = append(b, pieces[o.r.IntN(len(pieces))]...)
	}
	return o.r.IntN(2), b
}
