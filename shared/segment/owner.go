package segment

import (
	"github.com/theazo/observability/shared/telemetry"
)

// Where the agents or the sessions of a chunk are too many to list, a small
// bloom stands for them: ownerBits bits for each, ownerProbes of them set.
const (
	ownerBits   = 12
	ownerProbes = 4
	maxOwners   = 1 << 10 // bytes; a chunk of more is not denied anybody
)

// Owner is a session or an agent that the owners of a chunk can be asked for.
type Owner struct{ hash uint64 }

// SessionOwner is a session.
func SessionOwner(id telemetry.SessionID) Owner { return newOwner('s', string(id)) }

// AgentOwner is an agent.
func AgentOwner(id telemetry.AgentID) Owner { return newOwner('a', string(id)) }

func newOwner(kind byte, id string) Owner {
	const offset, prime = 14695981039346656037, 1099511628211 // FNV-1a
	h := (uint64(offset) ^ uint64(kind)) * prime
	for i := range len(id) {
		h = (h ^ uint64(id[i])) * prime
	}
	return Owner{mix(h)}
}

// Probes place the bits that are all set where the owner has lines, whatever
// the size of the bloom, for readers in SQL:
//
//	get_bit(owners, (($probe * (8 * octet_length(owners))) >> 32)::int)
func (o Owner) Probes() (probes [ownerProbes]int64) {
	h := o.hash
	for i := 0; i < ownerProbes; i += 2 {
		probes[i], probes[i+1] = int64(h>>32), int64(h&(1<<32-1)) //nolint:gosec // 32 bits
		h = mix(h + 0x9E3779B97F4A7C15)
	}
	return probes
}

// In reports whether the owner may have lines in a chunk with these owners.
func (o Owner) In(owners []byte) bool {
	for _, probe := range o.Probes() {
		if bit := probe * int64(8*len(owners)) >> 32; len(owners) > 0 && owners[bit>>3]&(1<<(bit&7)) == 0 {
			return false
		}
	}
	return true
}

// encodeOwners returns nil where there are none, or too many.
func encodeOwners(set map[Owner]struct{}) []byte {
	size := (len(set)*ownerBits + 7) / 8
	if size == 0 || size > 2*maxOwners {
		return nil
	}
	b := make([]byte, min(size, maxOwners))
	for o := range set {
		for _, probe := range o.Probes() {
			bit := probe * int64(8*len(b)) >> 32
			b[bit>>3] |= 1 << (bit & 7)
		}
	}
	return b
}
