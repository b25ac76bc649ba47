package redact

import (
	"cmp"
	"encoding/binary"
	"slices"
	"strings"
)

// minKeyword is the least length of a keyword: one that is three bytes long
// covers a whole pair of bytes at an even position, wherever it begins.
const minKeyword = 3

// keyword is a literal that a secret cannot do without.
type keyword struct {
	text  string // in lower case where fold is set
	fold  bool   // found in any case (ASCII)
	named bool   // it ends a name, after which a value may follow
	// match looks at the text around a keyword at [start,end) and adds spans.
	match func(s *scan, start, end int)
}

// index finds all keywords in one pass. It looks at the pairs of bytes at even
// positions only: of each keyword two pairs are known, the rarest one at an
// even and the rarest one at an odd offset, so that each occurrence is met
// exactly once, and most pairs of ordinary text belong to none.
type index struct {
	bits   [1 << 16 / 64]uint64 // the pairs of bytes that belong to a keyword
	group  [1 << 16]uint16      // pair -> 1 + its place in groups
	groups []group
}

// group is the keywords that share a pair of bytes.
type group struct {
	probes        []probe
	before, after byteSet // the bytes around the pair, of any of the keywords
}

// byteSet is a set of bytes.
type byteSet [4]uint64

func (s *byteSet) add(c byte)      { s[c>>6] |= 1 << (c & 63) }
func (s *byteSet) has(c byte) bool { return s[c>>6]>>(c&63)&1 != 0 }

// neighbour adds the byte of a keyword at a position in all its cases, or all
// bytes where the keyword has none there.
func (s *byteSet) neighbour(k *keyword, at int) {
	if at < 0 || at >= len(k.text) {
		*s = byteSet{^uint64(0), ^uint64(0), ^uint64(0), ^uint64(0)}
		return
	}
	for _, c := range cases(k.text[at], k.fold) {
		s.add(c)
	}
}

// probe is a keyword that has a certain pair at offset.
type probe struct {
	keyword *keyword
	offset  int
}

func newIndex(keywords []*keyword) *index {
	ix := &index{}
	// The short ones have no choice; the others take their pairs where they can.
	slices.SortStableFunc(keywords, func(a, b *keyword) int { return cmp.Compare(len(a.text), len(b.text)) })
	for _, k := range keywords {
		for parity := range 2 {
			best, least := -1, 0
			for o := parity; o+2 <= len(k.text); o += 2 {
				cost := pairCost(k, o)
				if ix.group[pairs(k, o)[0]] > 0 {
					cost /= 4 // it is looked at anyway
				}
				if best < 0 || cost < least {
					best, least = o, cost
				}
			}
			for _, pair := range pairs(k, best) {
				ix.add(pair, probe{k, best})
			}
		}
	}
	return ix
}

func (ix *index) add(pair uint16, p probe) {
	if ix.group[pair] == 0 {
		ix.groups = append(ix.groups, group{})
		ix.group[pair] = uint16(len(ix.groups)) //nolint:gosec // there are at most as many as pairs
		ix.bits[pair>>6] |= 1 << (pair & 63)
	}
	g := &ix.groups[ix.group[pair]-1]
	g.probes = append(g.probes, p)
	g.before.neighbour(p.keyword, p.offset-1)
	g.after.neighbour(p.keyword, p.offset+2)
}

// pairs returns the pair of a keyword at offset, in all cases that it is found in.
func pairs(k *keyword, offset int) []uint16 {
	var out []uint16
	for _, a := range cases(k.text[offset], k.fold) {
		for _, b := range cases(k.text[offset+1], k.fold) {
			out = append(out, uint16(a)|uint16(b)<<8)
		}
	}
	return out
}

func cases(c byte, fold bool) []byte {
	if fold && 'a' <= c && c <= 'z' {
		return []byte{c, c - 'a' + 'A'}
	}
	return []byte{c}
}

// byFrequency has the bytes that logs are made of, and commonPairs the pairs,
// the most frequent first: of sources, logs and documentation.
const (
	byFrequency = ` e0tai1nor"2s:3l-4d5c.=u6m7/p8_9g,fhbywvk{}[]()'xzjqTEISARNODC`
	commonPairs = `inresestore , eronats tethen tset  sleednthe iliaral apati--tad r anne "den itng=  ret: co",toamus c11kemeas2000ilactr12unisionsss fndll lagge o4 ma` +
		`ronc:3ecra02diue {ur 1ct peari btuelf lo6-ce-2ex e ntseql ha64)  mrt//mpodfochsiqu =fiverr digouaput-1hopookrdomads:not.pe-0 hy imca w\ud=ttt_ey25 u` +
		`":ni09g ytwo :iflfibplna.15-oo14epicgi1.cko rs4:latp:=s=()Re24vahtsw01pr:aids.06beef/ otbyai1- [furyrndaos==22 (269:rgolmd(b2:d6c :2e(h r.0.buCo *:0"`
)

// pairCost is how often a keyword's pair at offset is met in ordinary text, in
// no unit.
func pairCost(k *keyword, offset int) int {
	pair := k.text[offset : offset+2]
	for i := 0; i+2 <= len(commonPairs); i += 2 {
		if commonPairs[i:i+2] == pair {
			return 100 + len(commonPairs) - i
		}
	}
	cost := func(c byte) int {
		i := strings.IndexByte(byFrequency, c)
		if i < 0 {
			return 1
		}
		return 1 + len(byFrequency) - i
	}
	return cost(pair[0]) * cost(pair[1]) / 40
}

// next returns the first even position at or after from (which is even) whose
// pair belongs to a keyword, or -1.
func (ix *index) next(text []byte, from int) int {
	i := from
	for ; i+8 <= len(text); i += 8 {
		v := binary.LittleEndian.Uint64(text[i:])
		a, b, c, d := uint16(v), uint16(v>>16), uint16(v>>32), uint16(v>>48) //nolint:gosec // cut on purpose
		hit := ix.bits[a>>6]>>(a&63) | ix.bits[b>>6]>>(b&63) | ix.bits[c>>6]>>(c&63) | ix.bits[d>>6]>>(d&63)
		if hit&1 != 0 {
			break
		}
	}
	for ; i+2 <= len(text); i += 2 {
		pair := binary.LittleEndian.Uint16(text[i:])
		if ix.bits[pair>>6]>>(pair&63)&1 != 0 {
			return i
		}
	}
	return -1
}

// probes returns the keywords that may be at a position that next returned.
func (ix *index) probes(text []byte, at int) []probe {
	g := &ix.groups[ix.group[binary.LittleEndian.Uint16(text[at:])]-1]
	if at > 0 && !g.before.has(text[at-1]) || at+2 < len(text) && !g.after.has(text[at+2]) {
		return nil
	}
	return g.probes
}

// found reports whether the keyword is in text where the pair at position at
// says, and where it begins.
func (p probe) found(text []byte, at int) (start int, ok bool) {
	start = at - p.offset
	k := p.keyword
	if start < 0 || start+len(k.text) > len(text) {
		return 0, false
	}
	end := start + len(k.text)
	if k.named && (end == len(text) || classes[text[end]]&(1<<afterName) == 0) {
		return 0, false
	}
	there := text[start:end]
	if !k.fold {
		return start, there[0] == k.text[0] && string(there) == k.text
	}
	return start, equalFold(there, k.text)
}

// equalFold compares with a text in lower case.
func equalFold(b []byte, lower string) bool {
	if len(b) != len(lower) {
		return false
	}
	for i, c := range b {
		if toLower(c) != lower[i] {
			return false
		}
	}
	return true
}

func toLower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}
