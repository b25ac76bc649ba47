package otlp

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"
)

// reader holds the body of one request and the first error in it. After an
// error every node is empty, so that a walk ends by itself.
type reader struct {
	json bool
	data []byte
	pos  int // JSON only: behind what was read
	err  error
}

func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf(format, args...)
	}
}

// node is one value of a message: of either encoding, read when it is asked
// for. A value that nobody asks for costs only its skipping.
type node struct {
	r    *reader
	decl *field
	b    []byte // protobuf: what lies in a length-delimited field
	bits uint64 // protobuf: a number's
	at   int    // JSON: where the value begins
}

// walk goes over the fields of a message that the schema knows, in the order
// they come; of a repeated field over every element:
//
//	for c := n.walk(message); c.next(); {
//		switch c.number { … c.node … }
//	}
//
// A message may be walked over again, and must be where a walk was left early.
func (n node) walk(s *schema) cursor {
	return cursor{node: node{r: n.r, at: n.at}, schema: s, rest: n.b}
}

// cursor is a walk. Its node is the present field's value.
type cursor struct {
	node
	number int
	schema *schema

	rest   []byte // protobuf: what follows
	packed []byte // protobuf: numbers that follow in the same field
	opened bool   // JSON: the message has begun
	inList bool   // JSON: the node is an element of a list
}

func (c *cursor) next() bool {
	if c.r.json {
		return c.nextJSON()
	}
	return c.nextProto()
}

// find returns the first field of that number. Walk over the fields after it.
func (n node) find(s *schema, number int) (found node, ok bool) {
	for c := n.walk(s); c.next(); {
		if c.number == number {
			return c.node, true
		}
	}
	return node{}, false
}

// text is a string as it was sent.
func (n node) text() string {
	if !n.r.json {
		return string(n.b)
	}
	return n.r.jsonText(n.at)
}

// bytes is a bytes field. It may share the body's memory.
func (n node) bytes() []byte {
	if !n.r.json {
		return n.b
	}
	text := n.r.jsonText(n.at)
	if n.decl.kind == idKind {
		b, err := hex.DecodeString(text)
		if err != nil {
			n.r.fail("%s at byte %d: not hexadecimal", n.decl.name, n.at)
		}
		return b
	}
	text = strings.TrimRight(strings.NewReplacer("-", "+", "_", "/").Replace(text), "=")
	b, err := base64.RawStdEncoding.DecodeString(text)
	if err != nil {
		n.r.fail("%s at byte %d: not base64", n.decl.name, n.at)
	}
	return b
}

func (n node) isTrue() bool {
	if !n.r.json {
		return n.bits != 0
	}
	switch token := n.r.scalar(n.at); string(token) {
	case "true":
		return true
	case "false", "null", "":
	default:
		n.r.fail("%s at byte %d: not true or false", n.decl.name, n.at)
	}
	return false
}

// uint is an unsigned number, int a signed one. JSON may have them as a number or as text.
func (n node) uint() uint64 {
	if !n.r.json {
		return n.bits
	}
	token := n.number()
	if len(token) == 0 {
		return 0
	}
	u, err := strconv.ParseUint(string(token), 10, 64)
	if err != nil {
		f := n.integral(token)
		if f < 0 || f >= 1<<64 {
			n.r.fail("%s at byte %d: out of range", n.decl.name, n.at)
			return 0
		}
		return uint64(f)
	}
	return u
}

func (n node) int() int64 {
	if !n.r.json {
		if n.decl.kind == zigzagKind {
			return int64(n.bits>>1) ^ -int64(n.bits&1)
		}
		return int64(n.bits) //nolint:gosec // two's complement, as the wire format defines it
	}
	token := n.number()
	if len(token) == 0 {
		return 0
	}
	i, err := strconv.ParseInt(string(token), 10, 64)
	if err != nil {
		f := n.integral(token)
		if f < math.MinInt64 || f >= -math.MinInt64 {
			n.r.fail("%s at byte %d: out of range", n.decl.name, n.at)
			return 0
		}
		return int64(f)
	}
	return i
}

// integral reads a whole number that was written as 1e3 or 1.0.
func (n node) integral(token []byte) float64 {
	f, err := strconv.ParseFloat(string(token), 64)
	if err != nil || f != math.Trunc(f) {
		n.r.fail("%s at byte %d: not a whole number", n.decl.name, n.at)
		return 0
	}
	return f
}

// float is a double; what JSON has no number for is a word there.
func (n node) float() float64 {
	if !n.r.json {
		return math.Float64frombits(n.bits)
	}
	token := n.number()
	switch string(token) {
	case "":
		return 0
	case "NaN":
		return math.NaN()
	case "Infinity":
		return math.Inf(1)
	case "-Infinity":
		return math.Inf(-1)
	}
	f, err := strconv.ParseFloat(string(token), 64)
	if err != nil && !math.IsInf(f, 0) {
		n.r.fail("%s at byte %d: not a number", n.decl.name, n.at)
		return 0
	}
	return f
}

// number is the token of a number that may stand in quotes; a word of an
// enumeration is its number. It is empty for null.
func (n node) number() []byte {
	token := n.r.scalar(n.at)
	if string(token) == "null" {
		return nil
	}
	if len(token) < 2 || token[0] != '"' {
		return token
	}
	token = token[1 : len(token)-1]
	if n.decl.enum == "" {
		return token
	}
	if word, ok := bytes.CutPrefix(token, []byte(n.decl.enum)); ok {
		for i, w := range enumWords[n.decl.enum] {
			if w == string(word) {
				return strconv.AppendInt(nil, int64(i), 10)
			}
		}
	}
	return token
}

const picturedNUL = "\u2400"

// clean makes a text storable: UTF-8 without NUL, which is pictured instead.
func clean(s string) string {
	if !utf8.ValidString(s) {
		s = strings.ToValidUTF8(s, string(utf8.RuneError))
	}
	if strings.IndexByte(s, 0) >= 0 {
		s = strings.ReplaceAll(s, "\x00", picturedNUL)
	}
	return s
}

// cut shortens a text to most bytes, at a rune boundary.
func cut(s string, most int) (string, bool) {
	if len(s) <= most {
		return s, false
	}
	for most > 0 && !utf8.RuneStart(s[most]) {
		most--
	}
	return s[:most], true
}
