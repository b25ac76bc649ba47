package execclient

import (
	"bufio"
	"errors"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/theazo/observability/shared/execstream"
)

const (
	writeBytes   = 64 << 10 // of output in one write
	shortestWait = 50 * time.Millisecond
	longestWait  = 2 * time.Second
	maxHead      = 8 << 10
)

// errRefused says that agentd wants nothing of this session, now or later.
var errRefused = errors.New("refused")

// sender sends what the recorder keeps, over one connection after another.
type sender struct {
	to    endpoint
	r     *recorder
	hello []byte // the hello frame's payload
	agent string // User-Agent
}

// run sends until agentd has everything or wants nothing of it.
func (s *sender) run() {
	defer s.r.finish()
	for wait := shortestWait; ; wait = min(2*wait, longestWait) {
		began := time.Now()
		err := s.once()
		if err == nil || errors.Is(err, errRefused) {
			return
		}
		if time.Since(began) > longestWait {
			wait = shortestWait
		}
		s.r.again()
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-s.r.ended:
			timer.Stop()
			return
		}
	}
}

// once is one connection. nil: agentd has it all.
func (s *sender) once() error {
	c, err := s.to.dial()
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	answered := make(chan error, 1)
	go func() {
		answered <- s.readAnswer(c)
		_ = c.Close() // a write may wait for a peer that has said its last
	}()
	writeErr := s.write(c, answered)
	if writeErr != nil {
		_ = c.Close()
	}
	if err := <-answered; err == nil || errors.Is(err, errRefused) {
		return err
	}
	return errors.Join(writeErr, errors.New("the connection ended before the session did"))
}

// write sends the request: what there is, and what comes, up to the exit.
func (s *sender) write(c net.Conn, answered chan error) error {
	head := "POST " + s.to.path + execstream.Path + " HTTP/1.1\r\nHost: " + s.to.host + "\r\nUser-Agent: " + s.agent +
		"\r\nContent-Type: application/octet-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
	first := execstream.AppendFrame([]byte(execstream.Magic), execstream.TypeHello, s.hello)
	if _, err := io.WriteString(c, head+httpChunk(first)); err != nil {
		return err
	}
	var buf []byte
	for {
		chunks, exit := s.r.next(writeBytes)
		buf = buf[:0]
		for _, k := range chunks {
			kind := byte(execstream.TypeStdout)
			if k.stream == stderr {
				kind = execstream.TypeStderr
			}
			buf = execstream.AppendData(buf, kind, k.offset, k.at, k.data)
		}
		if exit != nil {
			buf = execstream.AppendFrame(buf, execstream.TypeExit, exit)
		}
		if len(buf) > 0 {
			text := httpChunk(buf)
			if exit != nil {
				text += "0\r\n\r\n"
			}
			if _, err := io.WriteString(c, text); err != nil {
				return err
			}
			s.r.progress()
		}
		if exit != nil {
			return nil
		}
		if len(chunks) > 0 {
			continue
		}
		select {
		case <-s.r.wake:
		case err := <-answered:
			answered <- err // for once
			return io.ErrClosedPipe
		}
	}
}

// httpChunk is b as one chunk of a body.
func httpChunk(b []byte) string {
	return strconv.FormatInt(int64(len(b)), 16) + "\r\n" + string(b) + "\r\n"
}

// readAnswer reads acknowledgements until agentd says that the session is
// durable (nil) or the connection ends.
func (s *sender) readAnswer(c net.Conn) error {
	in := bufio.NewReaderSize(c, maxHead)
	chunked, err := readHead(in)
	if err != nil {
		return err
	}
	s.r.connected()
	var body io.Reader = in
	if chunked {
		body = &chunkedReader{in: in}
	}
	var buf []byte
	for {
		var kind byte
		if kind, buf, err = execstream.ReadFrame(body, buf); err != nil {
			return err
		}
		switch kind {
		case execstream.TypeAck:
			out, e, err := execstream.ParseAck(buf)
			if err != nil {
				return err
			}
			s.r.acknowledge([2]int64{out, e})
		case execstream.TypeDone:
			return nil
		}
	}
}

// readHead reads the status and the header of an answer.
func readHead(in *bufio.Reader) (chunked bool, err error) {
	status := 0
	for size := 0; ; {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return false, err
		}
		if size += len(line); size > maxHead {
			return false, errors.New("the head of the answer is too long")
		}
		text := strings.TrimRight(string(line), "\r\n")
		switch {
		case status == 0:
			_, after, _ := strings.Cut(text, " ")
			code, _, _ := strings.Cut(after, " ")
			if status, err = strconv.Atoi(code); err != nil || !strings.HasPrefix(text, "HTTP/1.") {
				return false, errRefused // it speaks something else
			}
		case text != "":
			name, value, _ := strings.Cut(text, ":")
			if strings.EqualFold(name, "Transfer-Encoding") && strings.EqualFold(strings.TrimSpace(value), "chunked") {
				chunked = true
			}
		case status == 200:
			return chunked, nil
		case status/100 == 1: // an interim answer: the real one follows
			status = 0
		case status == 429 || status >= 500:
			return false, errors.New("not now: " + strconv.Itoa(status))
		default:
			return false, errRefused
		}
	}
}

// chunkedReader reads a chunked body.
type chunkedReader struct {
	in   *bufio.Reader
	left int64 // of the present chunk
}

func (c *chunkedReader) Read(b []byte) (int, error) {
	for c.left == 0 {
		line, err := c.in.ReadSlice('\n')
		if err != nil {
			return 0, err
		}
		text, _, _ := strings.Cut(strings.TrimSpace(string(line)), ";")
		if text == "" {
			continue // the end of the chunk before
		}
		if c.left, err = strconv.ParseInt(text, 16, 32); err != nil || c.left < 0 {
			return 0, errors.New("a chunk has no size")
		}
		if c.left == 0 {
			return 0, io.EOF
		}
	}
	n, err := c.in.Read(b[:min(int64(len(b)), c.left)])
	c.left -= int64(n)
	return n, err
}
