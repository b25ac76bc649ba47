package telemetry

import (
	"encoding/json"
	"strconv"
	"strings"
)

// metaValue reports whether test says yes to any value at a path of a JSON
// object. It goes over the bytes once, without a tree, because a search asks
// it of every line. What is not JSON has no values.
func metaValue(object []byte, path string, test func(value []byte) bool) bool {
	i := skipSpace(object, 0)
	if i >= len(object) || object[i] != '{' {
		return false
	}
	for i++; ; i++ {
		i = skipSpace(object, i)
		if i >= len(object) || object[i] != '"' {
			return false
		}
		key := i
		i = skipString(object, i)
		name := object[key:i]
		if i = skipSpace(object, i); i >= len(object) || object[i] != ':' {
			return false
		}
		value := skipSpace(object, i+1)
		if i = skipValue(object, value); i <= value {
			return false
		}
		if member(name, object[value:i], path, test) {
			return true
		}
		if i = skipSpace(object, i); i >= len(object) || object[i] != ',' {
			return false
		}
	}
}

// member goes on with one member of an object, whose name may be a part of
// the path with dots of its own.
func member(name, value []byte, path string, test func([]byte) bool) bool {
	key := jsonText(name)
	rest, found := strings.CutPrefix(path, key)
	switch {
	case !found || key == "":
		return false
	case rest == "":
		return test(value)
	case rest[0] == '.' && len(rest) > 1:
		return elements(value, func(v []byte) bool { return metaValue(v, rest[1:], test) })
	}
	return false
}

// elements asks of a value or, where it is a list, of each of its members.
func elements(value []byte, test func([]byte) bool) bool {
	if value[0] != '[' {
		return test(value)
	}
	for i := 1; ; i++ {
		start := skipSpace(value, i)
		if i = skipValue(value, start); i <= start {
			return false
		}
		if test(value[start:i]) {
			return true
		}
		if i = skipSpace(value, i); i >= len(value) || value[i] != ',' {
			return false
		}
	}
}

func skipSpace(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\t' || b[i] == '\n' || b[i] == '\r') {
		i++
	}
	return i
}

// skipString returns the index behind the string that begins at i.
func skipString(b []byte, i int) int {
	for i++; i < len(b); i++ {
		switch b[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(b)
}

// skipValue returns the index behind the value that begins at i; i itself
// where there is none.
func skipValue(b []byte, i int) int {
	if i >= len(b) {
		return i
	}
	switch b[i] {
	case '"':
		return skipString(b, i)
	case '{', '[':
		return skipNested(b, i)
	}
	for i < len(b) && strings.IndexByte(",]} \t\r\n", b[i]) < 0 {
		i++
	}
	return i
}

// skipNested returns the index behind the object or list that begins at i.
func skipNested(b []byte, i int) int {
	for depth := 0; i < len(b); {
		switch b[i] {
		case '"':
			i = skipString(b, i)
			continue
		case '{', '[':
			depth++
		case '}', ']':
			depth--
		}
		if i++; depth == 0 {
			return i
		}
	}
	return len(b)
}

// jsonText is what a scalar says: the text of a string, else the value as written.
func jsonText(b []byte) string {
	if len(b) < 2 || b[0] != '"' {
		return string(b)
	}
	if strings.IndexByte(string(b), '\\') < 0 {
		return string(b[1 : len(b)-1])
	}
	var s string
	if json.Unmarshal(b, &s) != nil {
		return ""
	}
	return s
}

func isPresent(value []byte) bool { return string(value) != "null" }

// metaIs reports whether a value, or a member of the list that it is, is what
// the condition asks for.
func (e *LogExpr) metaIs(value []byte) bool {
	return elements(value, func(v []byte) bool {
		if v[0] == '{' || v[0] == '[' {
			return false
		}
		text := jsonText(v)
		if e.compare == Equal {
			return e.equals(text)
		}
		n, ok := decimal(text)
		if !ok {
			return false
		}
		switch e.compare {
		case Less:
			return n < e.number
		case LessOrEqual:
			return n <= e.number
		case Greater:
			return n > e.number
		case GreaterOrEqual:
			return n >= e.number
		case Equal:
		}
		return false
	})
}

// equals compares texts, and numbers however they are written. Whole numbers
// are texts: as floating point, two long ids would be the same.
func (e *LogExpr) equals(text string) bool {
	for _, want := range e.values {
		if text == want {
			return true
		}
		if isWhole(text) && isWhole(want) {
			continue
		}
		if a, ok := decimal(text); ok {
			if b, ok := decimal(want); ok && a == b {
				return true
			}
		}
	}
	return false
}

func isWhole(s string) bool {
	s = strings.TrimPrefix(s, "-")
	return s != "" && strings.Trim(s, "0123456789") == ""
}

// decimal reads a number as JSON writes them.
func decimal(s string) (float64, bool) {
	if s == "" || len(s) > 64 || strings.Trim(s, "0123456789.eE+-") != "" {
		return 0, false
	}
	n, err := strconv.ParseFloat(s, 64)
	return n, err == nil
}
