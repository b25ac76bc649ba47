package redact

import (
	"bytes"
	"strings"
)

// looksRandom reports whether a value looks like made by a machine rather than
// a name, a path, a number or a sentence.
func looksRandom(v []byte) bool {
	if len(v) < 8 {
		return false
	}
	v = v[:min(len(v), checkLimit)]
	if symbols(v) {
		return true
	}
	run, digits, letters, lowers, uppers := 0, 0, 0, 0, 0
	for i := 0; i <= len(v); i++ {
		var c byte
		if i < len(v) {
			c = v[i]
		}
		switch {
		case '0' <= c && c <= '9':
			digits++
		case 'a' <= c && c <= 'z':
			letters++
			lowers++
		case 'A' <= c && c <= 'Z':
			letters++
			uppers++
		default:
			if randomRun(run, digits, letters, lowers, uppers) {
				return true
			}
			run, digits, letters, lowers, uppers = 0, 0, 0, 0, 0
			continue
		}
		run++
	}
	return false
}

// symbols reports whether a value has digits, letters and the signs that
// generators of passwords put between them.
func symbols(v []byte) bool {
	signs := 0
	for _, c := range v {
		switch c {
		case '!', '@', '#', '$', '%', '^', '&', '*', '+', '~':
			signs++
		case ' ':
			return false
		}
	}
	return signs >= 2 && len(v) >= 10 && hasDigit(v)
}

// randomRun judges a run of letters and digits by what it is made of.
func randomRun(run, digits, letters, lowers, uppers int) bool {
	switch {
	case run < 8:
		return false
	case digits >= 2 && letters >= 2:
		return true
	case run >= 16 && lowers >= 3 && uppers >= run/4: // more capitals than namesOfThings have
		return true
	}
	return false
}

// elsewhere begins what says where a secret is, or that it is masked.
var elsewhere = []string{
	"process.env", "os.environ", "os.getenv", "getenv(", "env.", "vault:", "secretref:", "arn:aws:secretsmanager",
	"[filtered]", "[redacted]", "[hidden]", "(redacted)", "***",
}

// placeholder reports whether a value stands for one that is elsewhere, or is
// masked already.
func placeholder(v []byte) bool {
	switch v[0] {
	case '$', '<', '{', '%':
		if v[0] != '$' || len(v) > 1 && (v[1] == '{' || v[1] == '(' || 'A' <= v[1] && v[1] <= 'Z') {
			return true
		}
	}
	if same(v) {
		return true
	}
	for _, p := range elsewhere {
		if len(v) >= len(p) && equalFold(v[:len(p)], p) {
			return true
		}
	}
	return false
}

// same reports whether a value is one character again and again: ****, xxxx, ....
func same(v []byte) bool {
	switch v[0] {
	case '*', 'x', 'X', '.', '-', '_', '#', '?':
		return bytes.Count(v[:min(len(v), checkLimit)], v[:1]) == min(len(v), checkLimit)
	}
	return bytes.HasPrefix(v, []byte("•")) || bytes.HasPrefix(v, []byte("●"))
}

// call reports whether a value is code that gets one: get_password(…).
func call(v []byte) bool {
	open := bytes.IndexByte(v[:min(len(v), checkLimit)], '(')
	if open < 1 {
		return false
	}
	for _, c := range v[:open] {
		if classes[c]&(1<<dotted) == 0 {
			return false
		}
	}
	return true
}

// statusWords follow the name of a secret without being one.
var statusWords = func() map[string]bool {
	words := make(map[string]bool)
	for w := range strings.FieldsSeq(`true false null nil none undefined empty yes no ok on off set unset unknown string str bytes int bool any
		hidden redacted filtered masked omitted changed updated required missing invalid incorrect wrong expired valid accepted rejected
		denied failed failure error reset not is was must should has cannot can only the a an for from and or in to by with
		optional default enabled disabled basic bearer oauth oauth2 plain scram-sha-256 md5 sha256 bcrypt argon2 hash hashed text
		file env secret password token key protected private public prompt auto ask new old current same`) {
		words[w] = true
	}
	return words
}()

func statusWord(v []byte) bool {
	v = bytes.TrimRight(v, ".!?")
	var lower [16]byte
	if len(v) > len(lower) {
		return false
	}
	for i, c := range v {
		lower[i] = toLower(c)
	}
	return statusWords[string(lower[:len(v)])]
}

// lettersOnly reports whether a value is a word.
func lettersOnly(v []byte) bool {
	for _, c := range v {
		if c < 0x80 && (classes[c]&(1<<alnum) == 0 || classes[c]&(1<<digit) != 0) {
			return false
		}
	}
	return true
}

// member reports whether a value is code that gets one: options.password.
func member(v []byte) bool {
	dot := bytes.IndexByte(v, '.')
	if dot < 1 || dot == len(v)-1 {
		return false
	}
	for _, c := range v {
		if c != '.' && c != '_' && (classes[c]&(1<<alnum) == 0 || classes[c]&(1<<digit) != 0) {
			return false
		}
	}
	return true
}

// sentence reports whether a value is what a validation says of one: "is too
// short", "must have 8 characters".
func sentence(v []byte) bool {
	first, rest, more := bytes.Cut(v, []byte(" "))
	second, _, evenMore := bytes.Cut(rest, []byte(" "))
	return more && evenMore && (statusWord(first) || lettersOnly(first) && statusWord(second))
}

// number reports whether a value is a plain number.
func number(v []byte) bool {
	for _, c := range v {
		if (c < '0' || c > '9') && c != '.' {
			return false
		}
	}
	return true
}

// path reports whether a value is a name in a file system or a namespace.
func path(v []byte) bool {
	if v[0] == '/' || bytes.HasPrefix(v, []byte("./")) || bytes.HasPrefix(v, []byte("~/")) {
		return !mixed(v) || bytes.IndexByte(v, '+') < 0 && bytes.Count(v, []byte("/")) > 1
	}
	return false
}
