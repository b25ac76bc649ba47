package segment

import (
	"math/bits"
)

// BloomSlice is the size of the piece of a bloom that answers for one token.
const BloomSlice = 64

const (
	bloomTrailer  = 1 // the version, after the slices
	bloomVersion  = 1
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
func (t Token) Slot() int64 { return int64(t.hash >> 32) } //nolint:gosec // 32 bits

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
	trigrams []uint64 // of ASCII: a bit for each
	tokens   tokenSet // the others
}

func (w *bloomWriter) encode() []byte {
	n := w.tokens.len()
	for _, word := range w.trigrams {
		n += bits.OnesCount64(word)
	}
	slots := min(max((n*bitsPerToken+BloomSlice*8-1)/(BloomSlice*8), 1), maxBloomSlots)
	bloom := make([]byte, slots*BloomSlice+bloomTrailer)
	bloom[len(bloom)-1] = bloomVersion
	w.tokens.each(func(hash uint64) { set(bloom, Token{hash}) })
	for i, word := range w.trigrams {
		for ; word != 0; word &= word - 1 {
			set(bloom, Token{mix(kindTrigram | uint64(i*64+bits.TrailingZeros64(word)))}) //nolint:gosec // small numbers
		}
	}
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

func (w *bloomWriter) reset() {
	clear(w.trigrams)
	w.tokens.reset()
}

// tokenSet is a set of hashes: open addressing, 0 marks a free place.
type tokenSet struct {
	table []uint64
	used  int
}

func (s *tokenSet) len() int { return s.used }

func (s *tokenSet) add(hash uint64) {
	if hash == 0 {
		hash = 1
	}
	if 2*s.used >= len(s.table) {
		s.grow()
	}
	shift := 64 - bits.Len(uint(len(s.table)-1)) //nolint:gosec // a power of two
	for i := hash >> shift; ; i = (i + 1) & uint64(len(s.table)-1) {
		switch s.table[i] {
		case hash:
			return
		case 0:
			s.table[i] = hash
			s.used++
			return
		}
	}
}

func (s *tokenSet) grow() {
	old := s.table
	s.table, s.used = make([]uint64, max(1024, 2*len(old))), 0
	for _, hash := range old {
		if hash != 0 {
			s.add(hash)
		}
	}
}

func (s *tokenSet) each(do func(hash uint64)) {
	for _, hash := range s.table {
		if hash != 0 {
			do(hash)
		}
	}
}

func (s *tokenSet) reset() {
	clear(s.table)
	s.used = 0
}
