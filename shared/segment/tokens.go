package segment

import (
	"math/bits"
	"slices"
	"unicode/utf8"

	"github.com/theazo/observability/shared/telemetry"
)

// What a bloom knows of a text, folded as telemetry.FoldText does. Search is
// for parts of messages, so a token must be the same wherever its bytes stand:
//
//   - Trigrams of ASCII: digits count as one, control characters as one, so
//     that numbers do not fill the bloom. They find words and parts of words.
//   - Trigrams that touch other scripts, byte by byte.
//   - Parts of ids. An id is long, random and one in a million, and its trigrams
//     are in every chunk that has ids; all its parts would be too many. So: of
//     every idWindow bytes in a row that can be of an id (letters, digits, '_'
//     and '-', at least idDigits of them digits), the part of idGram bytes with the
//     lowest hash. Neighbours mostly agree on it: an id of 16 digits
//     has about 3 tokens. A search text of idWindow bytes or more of an id
//     has a window of its own, which has the same lowest part in every text.
const (
	idGram   = 6
	idWindow = 10
	idDigits = 2
	idChoice = idWindow - idGram + 1 // parts in a window
)

// Kinds of tokens, above their bytes.
const (
	kindTrigram = uint64(iota+1) << 60
	kindBytes
	kindID
)

// MaxTokens bounds what Tokens returns: more would tell little more.
const MaxTokens = 16

// Tokens returns what every message that holds all the texts (as
// telemetry.ContainsFold says) has in the bloom of its chunk, the most telling
// first. None: the texts are too short to say anything.
func Tokens(texts ...string) []Token {
	var ids, others []uint64
	for _, text := range texts {
		folded := []byte(telemetry.FoldText(text))
		eachID(folded, func(hash uint64) { ids = append(ids, hash) })
		for i := 0; i+3 <= len(folded); i++ {
			others = append(others, trigramToken(folded[i:i+3]))
		}
	}
	ids, others = distinct(ids), distinct(others)
	slices.SortStableFunc(others, func(a, b uint64) int { return commonness(a) - commonness(b) })
	tokens := make([]Token, 0, MaxTokens)
	for _, token := range slices.Concat(ids, others) {
		if len(tokens) == MaxTokens {
			break
		}
		tokens = append(tokens, Token{mix(token)})
	}
	return tokens
}

func distinct(tokens []uint64) []uint64 {
	slices.Sort(tokens)
	return slices.Compact(tokens)
}

// commonness is how often a trigram is to be expected, roughly.
func commonness(token uint64) int {
	if token&^(1<<60-1) != kindTrigram {
		return 0
	}
	return classWeight[token&classBits] + classWeight[token>>6&classBits] + classWeight[token>>12&classBits]
}

// trigramToken is the token of three bytes of folded text.
func trigramToken(b []byte) uint64 {
	if b[0]|b[1]|b[2] >= utf8.RuneSelf {
		return kindBytes | uint64(digitsAsOne(b[0]))<<16 | uint64(digitsAsOne(b[1]))<<8 | uint64(digitsAsOne(b[2]))
	}
	return kindTrigram | uint64(class[b[0]]&classBits)<<12 | uint64(class[b[1]]&classBits)<<6 | uint64(class[b[2]]&classBits)
}

func digitsAsOne(c byte) byte {
	if c >= '0' && c <= '9' {
		return '0'
	}
	return c
}

// eachID calls do with the token of every window of folded text.
func eachID(folded []byte, do func(token uint64)) {
	from, digits := 0, 0
	for i, c := range folded {
		switch f := class[c]; {
		case f&classOfID == 0:
			if i-from >= idWindow && digits >= idDigits {
				eachWindow(folded[from:i], do)
			}
			from, digits = i+1, 0
		case f&classDigit != 0:
			digits++
		}
	}
	if len(folded)-from >= idWindow && digits >= idDigits {
		eachWindow(folded[from:], do)
	}
}

// eachWindow does so for a stretch of bytes that can be of an id.
func eachWindow(b []byte, do func(token uint64)) {
	var hashes [8]uint64 // of the last parts: a ring
	gram, digits, last := uint64(0), uint64(0), uint64(0)
	for i, c := range b {
		gram = (gram<<8 | uint64(lower[c])) & (1<<(8*idGram) - 1)
		digits = (digits<<1 | uint64(class[c]>>digitShift)) & (1<<idWindow - 1)
		hashes[i&7] = gram * 0x9E3779B97F4A7C15 // odd, so that no two parts have one hash
		if i < idWindow-1 || bits.OnesCount64(digits) < idDigits {
			continue
		}
		lowest := hashes[i&7]
		for j := 1; j < idChoice; j++ {
			lowest = min(lowest, hashes[(i-j)&7])
		}
		if lowest != last {
			last = lowest
			do(kindID | lowest>>8)
		}
	}
}

// classes of bytes: six bits for trigrams, and what they can be part of.
const (
	classBits  = 0x3f
	classOfID  = 0x40
	classDigit = 0x80
	digitShift = 7
)

// class of each byte, without regard to case.
var class, classWeight = func() (class [256]byte, weight [64]int) {
	next := byte(0) // 0: control characters
	give := func(chars string, flags byte, w int) {
		for i := range len(chars) {
			class[chars[i]] = next | flags
		}
		weight[next] = w
		next++
	}
	give("\x7f", 0, 1)
	for i, c := range []byte("etaoinsrhldcumfpgwybvkxjqz") { // the most frequent first
		give(string([]byte{c, c - 'a' + 'A'}), classOfID, 26-i)
	}
	give("0123456789", classOfID|classDigit, 30)
	give("_", classOfID, 10)
	give("-", classOfID, 15)
	give(" ", 0, 30)
	for _, c := range []byte("./:=\"',()[]{};%@#&+*?!<>|\\$") {
		give(string([]byte{c}), 0, 8)
	}
	give("~^`", 0, 1)
	for c := 128; c < 256; c++ {
		class[c] = 0
	}
	return class, weight
}()

// lower folds the case of ASCII and leaves other bytes alone.
var lower = func() (t [256]byte) {
	for i := range t {
		t[i] = byte(i)
	}
	for c := 'A'; c <= 'Z'; c++ {
		t[c] = byte(c - 'A' + 'a')
	}
	return t
}()

// addMessage adds the tokens of a message.
func (w *bloomWriter) addMessage(text []byte) {
	if !isASCII(text) {
		w.addFolded([]byte(telemetry.FoldText(string(text))))
		return
	}
	w.addTrigrams(text)
	eachID(text, w.addID)
}

// addTrigrams sets a bit for each trigram of ASCII text, which is all that happens for most
// bytes.
func (w *bloomWriter) addTrigrams(text []byte) {
	if w.trigrams == nil {
		w.trigrams = make([]uint64, 1<<18/64)
	}
	if len(text) < 3 {
		return
	}
	seen := (*[1 << 18 / 64]uint64)(w.trigrams)
	gram := uint(class[text[0]]&classBits)<<6 | uint(class[text[1]]&classBits)
	for _, c := range text[2:] {
		gram = (gram<<6 | uint(class[c]&classBits)) & (1<<18 - 1)
		if bit := uint64(1) << (gram & 63); seen[gram>>6]&bit == 0 {
			seen[gram>>6] |= bit
		}
	}
}

func (w *bloomWriter) addFolded(folded []byte) {
	for i := 0; i+3 <= len(folded); i++ {
		if b := folded[i : i+3]; b[0]|b[1]|b[2] < utf8.RuneSelf {
			w.addTrigrams(b)
		} else {
			w.tokens.add(mix(trigramToken(b)))
		}
	}
	eachID(folded, w.addID)
}

func (w *bloomWriter) addID(token uint64) { w.tokens.add(mix(token)) }
