package segment

import (
	"encoding/binary"
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

// eachID calls do with the token of each window of folded text that has one;
// neighbours may have the same.
func eachID(text []byte, do func(token uint64)) {
	run := uint32(0) // a bit for each of the last bytes: it can be of an id
	for i, c := range text {
		run = run<<1 | uint32(class[c]>>idShift&1)
		if run&(1<<idWindow-1) == 1<<idWindow-1 {
			if token := idToken(text[i+1-idWindow : i+1]); token != 0 {
				do(token)
			}
		}
	}
}

// idToken returns the token of a window whose bytes can all be of an id; 0:
// it has too few digits. Case does not matter.
func idToken(window []byte) uint64 {
	low, high := binary.LittleEndian.Uint64(window), binary.LittleEndian.Uint64(window[idWindow-8:])
	// Of the bytes of ids, digits alone have bit 4 and not bit 6.
	const each, last = 0x0101010101010101, 0x0101 << 48
	if bits.OnesCount64(low>>4&^(low>>6)&each)+bits.OnesCount64(high>>4&^(high>>6)&last) < idDigits {
		return 0
	}
	// Those with bit 6 are letters and '_', which bit 5 tells apart from nothing else here.
	low |= low & (0x40 * each) >> 1
	high |= high & (0x40 * each) >> 1
	const gram, odd = 1<<(8*idGram) - 1, 0x9E3779B97F4A7C15 // odd, so that no two parts have one hash
	lowest := min(low&gram*odd, low>>8&gram*odd, low>>16*odd, high>>8&gram*odd, high>>16*odd)
	return kindID | lowest>>8
}

// classes of bytes: six bits for trigrams, and what they can be part of.
const (
	classBits = 0x3f
	classOfID = 1 << idShift
	idShift   = 6
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
	give("0123456789", classOfID, 30)
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
	if w.trigrams == nil {
		w.trigrams = new([1 << 18 / 64]uint64)
	}
	if isASCII(text) {
		w.addASCII(text)
		return
	}
	w.folded = appendFold(w.folded[:0], text)
	w.addFolded(w.folded)
}

// addFolded does so for folded text that is not all ASCII.
func (w *bloomWriter) addFolded(folded []byte) {
	if w.seen == nil {
		w.seen = new([1 << 24 / 64]uint64)
	}
	for i := 0; i+3 <= len(folded); i++ {
		token := trigramToken(folded[i : i+3])
		if token>>60 == kindTrigram>>60 {
			gram := token &^ kindTrigram
			w.trigrams[gram>>6] |= 1 << (gram & 63)
			continue
		}
		gram := uint32(token &^ kindBytes) //nolint:gosec // 24 bits
		if bit := uint64(1) << (gram & 63); w.seen[gram>>6]&bit == 0 {
			w.seen[gram>>6] |= bit
			w.bytes = append(w.bytes, gram)
		}
	}
	eachID(folded, func(token uint64) { w.add(mix(token)) })
}

// addASCII does so for text of ASCII, of either case, in one pass.
func (w *bloomWriter) addASCII(text []byte) {
	gram, run, last := uint32(0), uint32(0), uint64(0)
	seen := w.trigrams
	for i, b := range text {
		c := uint32(class[b])
		gram = (gram<<6 | c&classBits) & (1<<18 - 1)
		run = run<<1 | c>>idShift&1
		if bit := uint64(1) << (gram & 63); seen[gram>>6]&bit == 0 && i >= 2 {
			seen[gram>>6] |= bit
		}
		if run&(1<<idWindow-1) == 1<<idWindow-1 {
			if token := idToken(text[i+1-idWindow : i+1]); token != 0 && token != last {
				last = token
				w.add(mix(token))
			}
		}
	}
}
