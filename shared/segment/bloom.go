package segment

import (
	"math/bits"
)

// BloomSlice is the size of the piece of a bloom that answers for one token.
const BloomSlice = 64

const (
	bloomTrailer  = 1 // bytes after the slices: readers of one slice know the version by the size
	bloomVersion  = 1 // what is in them
	bitsPerToken  = 10
	probesPerTok  = 6
	maxBloomSlots = 1024
)

// Token is a part of a text that a bloom can be asked for.
type Token struct{ hash uint64 }

// Slot is what places a token's slice in a bloom, whatever its size, for
// readers that fetch only the slice:
//
//	substring(bloom from (1 + 64 * (($slot * (octet_length(bloom) / 64)) >> 32))::int for 64)
func (t Token) Slot() int64 { return int64(t.hash >> 32) }

// Offset is where the token's slice begins in a bloom of that size, from 0.
func (t Token) Offset(bloomSize int) int {
	slots := uint64(bloomSize / BloomSlice) //nolint:gosec // not negative
	return int((t.hash>>32)*slots>>32) * BloomSlice
}

// In reports whether the token may be in a chunk whose bloom has this slice
// at Offset; false: it is not. A slice of another size answers nothing.
func (t Token) In(slice []byte) bool {
	if len(slice) != BloomSlice {
		return true
	}
	probe := t.probes()
	for range probesPerTok {
		bit := probe & 511
		if slice[bit>>3]&(1<<(bit&7)) == 0 {
			return false
		}
		probe >>= 9
	}
	return true
}

func (t Token) probes() uint64 { return mix(t.hash) }

// mix spreads a hash over all 64 bits (splitmix64).
func mix(h uint64) uint64 {
	h ^= h >> 30
	h *= 0xbf58476d1ce4e5b9
	h ^= h >> 27
	h *= 0x94d049bb133111eb
	return h ^ h>>31
}

// BloomMayHold reports whether the lines of a chunk may hold all the tokens.
func BloomMayHold(bloom []byte, tokens []Token) bool {
	if len(bloom)%BloomSlice != bloomTrailer || len(bloom) < BloomSlice {
		return true // of a version that is not known here
	}
	for _, t := range tokens {
		at := t.Offset(len(bloom))
		if !t.In(bloom[at : at+BloomSlice]) {
			return false
		}
	}
	return true
}

// bloomWriter collects the distinct tokens of a chunk.
type bloomWriter struct {
	trigrams *[1 << 18 / 64]uint64 // of ASCII: a bit for each
	tokens   []uint64              // hashes of parts of ids
	recent   [4096]uint64          // of tokens, so that few are held twice

	// Of text that is not all ASCII; nil until there is any.
	folded []byte
	seen   *[1 << 24 / 64]uint64 // trigrams of bytes: a bit for each
	bytes  []uint32              // those that are set
}

func (w *bloomWriter) add(hash uint64) {
	if at := &w.recent[hash>>52]; *at != hash {
		*at = hash
		w.tokens = append(w.tokens, hash)
	}
}

func (w *bloomWriter) encode() []byte {
	n := len(w.tokens) + len(w.bytes)
	for _, word := range w.trigrams {
		n += bits.OnesCount64(word)
	}
	slots := min(max((n*bitsPerToken+BloomSlice*8-1)/(BloomSlice*8), 1), maxBloomSlots)
	bloom := make([]byte, slots*BloomSlice+bloomTrailer)
	bloom[len(bloom)-1] = bloomVersion
	for _, hash := range w.tokens {
		set(bloom, Token{hash})
	}
	for i, word := range w.trigrams {
		for ; word != 0; word &= word - 1 {
			set(bloom, Token{mix(kindTrigram | uint64(i*64+bits.TrailingZeros64(word)))}) //nolint:gosec // small numbers
		}
	}
	for _, gram := range w.bytes {
		set(bloom, Token{mix(kindBytes | uint64(gram))})
		w.seen[gram>>6] = 0
	}
	w.bytes = w.bytes[:0]
	clear(w.trigrams[:])
	clear(w.recent[:])
	w.tokens = w.tokens[:0]
	return bloom
}

func set(bloom []byte, t Token) {
	slice := bloom[t.Offset(len(bloom)):][:BloomSlice]
	probe := t.probes()
	for range probesPerTok {
		bit := probe & 511
		slice[bit>>3] |= 1 << (bit & 7)
		probe >>= 9
	}
}
