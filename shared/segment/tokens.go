package segment

import (
	"github.com/theazo/observability/shared/telemetry"
)

// minWord is the length from which a word is a token; shorter ones are as well found by
// their trigrams.
const minWord = 4

// Tokens returns what every message that holds all the texts has in the bloom
// of its chunk: their trigrams, digits taken as one, and the words that they hold whole. No
// tokens: the texts are too short to say.
func Tokens(texts ...string) []Token {
	var set tokenSet
	for _, text := range texts {
		folded := []byte(telemetry.FoldText(text))
		eachTrigram(folded, set.add)
		eachWord(folded, func(from, to int) {
			if from > 0 && to < len(folded) { // at its ends, the text may be part of longer words
				set.add(wordHash(folded[from:to]))
			}
		})
	}
	tokens := make([]Token, 0, set.len())
	set.each(func(hash uint64) { tokens = append(tokens, Token{hash}) })
	return tokens
}

func (w *bloomWriter) addMessage(message []byte) {
	folded := message
	if isASCII(message) {
		folded = make([]byte, len(message))
		for i, c := range message {
			if c >= 'A' && c <= 'Z' {
				c += 'a' - 'A'
			}
			folded[i] = c
		}
	} else {
		folded = []byte(telemetry.FoldText(string(message)))
	}
	eachTrigram(folded, w.tokens.add)
	eachWord(folded, func(from, to int) { w.tokens.add(wordHash(folded[from:to])) })
}

func eachTrigram(folded []byte, do func(hash uint64)) {
	gram := uint64(0)
	for i, c := range folded {
		if c >= '0' && c <= '9' {
			c = '0'
		}
		gram = (gram<<8 | uint64(c)) & 0xffffff
		if i >= 2 {
			do(mix(gram | 1<<24))
		}
	}
}

// eachWord finds the words of folded text that are tokens: those with a digit,
// since all others are as good as their trigrams.
func eachWord(folded []byte, do func(from, to int)) {
	from, digit := 0, false
	for i, c := range folded {
		if isWord(c) {
			digit = digit || c >= '0' && c <= '9'
			continue
		}
		if digit && i-from >= minWord {
			do(from, i)
		}
		from, digit = i+1, false
	}
	if digit && len(folded)-from >= minWord {
		do(from, len(folded))
	}
}

func isWord(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '_' || c >= 0x80
}

func wordHash(word []byte) uint64 {
	h := uint64(14695981039346656037)
	for _, c := range word {
		h = (h ^ uint64(c)) * 1099511628211
	}
	return mix(h)
}
