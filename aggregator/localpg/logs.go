package localpg

import (
	"bufio"
	"io"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"github.com/hashicorp/go-hclog"
)

const (
	logPrefix = "%p %e " // process, SQLSTATE: what logLine reads
	lineMax   = 8 << 10  // bytes of one line that are kept
	tailMax   = 2 << 10  // bytes of output that an error may quote
)

var logLine = regexp.MustCompile(`^(\d+) ([0-9A-Z]{5}) ([A-Z0-9]+):  (.*)$`)

// forward logs PostgreSQL's output line by line until it ends, and keeps its last
// complaints for the error of a start that fails.
func forward(log hclog.Logger, output io.Reader, complaints *tail) {
	level := hclog.Debug
	r := bufio.NewReaderSize(output, lineMax)
	for {
		line, more, err := r.ReadLine()
		if err != nil {
			return
		}
		text := strings.ToValidUTF8(string(line), "\uFFFD")
		for more && err == nil { // The rest of a line that is too long.
			_, more, err = r.ReadLine()
		}
		m := logLine.FindStringSubmatch(text)
		switch {
		case m != nil:
			pid, _ := strconv.Atoi(m[1])
			level, text = levelOf(m[3], m[2]), m[4]
			log.Log(level, "postgresql", "line", text, "severity", m[3], "sqlstate", m[2], "pid", pid)
		case strings.HasPrefix(text, "\t"): // A further line of the same message.
			text = strings.TrimSpace(text)
			log.Log(level, "postgresql", "line", text)
		default: // Somebody else's words, as the loader's about a missing library.
			level = hclog.Warn
			log.Log(level, "postgresql", "line", text)
		}
		if level >= hclog.Warn {
			_, _ = complaints.Write([]byte(text + "\n"))
		}
	}
}

// levelOf: an ERROR has been returned to the statement's sender, who decides what
// it means; so has a FATAL of a server that is starting or ending, one for each
// attempt to connect.
func levelOf(severity, sqlstate string) hclog.Level {
	switch severity {
	case "PANIC":
		return hclog.Error
	case "FATAL":
		if sqlstate == "57P03" || sqlstate == "57P01" || sqlstate == "3D000" {
			return hclog.Debug
		}
		return hclog.Warn
	case "WARNING":
		return hclog.Warn
	default:
		return hclog.Debug
	}
}

// tail keeps the end of what is written to it.
type tail struct {
	mu   sync.Mutex
	data []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.data = append(t.data, p...)
	if cut := len(t.data) - tailMax; cut > 0 {
		t.data = append(t.data[:0], t.data[cut:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(strings.ToValidUTF8(string(t.data), "\uFFFD"))
}
