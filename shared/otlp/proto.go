package otlp

import (
	"iter"

	"google.golang.org/protobuf/encoding/protowire"
)

// protoFields walks over a message in protobuf's wire format. A field of
// another wire type than its declaration's is an unknown one, as everywhere.
func (r *reader) protoFields(b []byte, s *schema) iter.Seq2[int, node] {
	return func(yield func(int, node) bool) {
		for len(b) > 0 && r.err == nil {
			number, wireType, size := protowire.ConsumeTag(b)
			if size < 0 {
				r.fail("%s: a field's tag is malformed", s.name)
				return
			}
			b = b[size:]
			n := node{r: r}
			switch wireType {
			case protowire.VarintType:
				n.bits, size = protowire.ConsumeVarint(b)
			case protowire.Fixed64Type:
				n.bits, size = protowire.ConsumeFixed64(b)
			case protowire.Fixed32Type:
				_, size = protowire.ConsumeFixed32(b)
			case protowire.BytesType:
				n.b, size = protowire.ConsumeBytes(b)
			default:
				size = -1 // groups: no message of ours ever had one
			}
			if size < 0 {
				r.fail("%s: field %d is malformed or cut off", s.name, number)
				return
			}
			b = b[size:]
			if int(number) >= len(s.byNumber) || s.byNumber[number] == nil {
				continue
			}
			n.decl = s.byNumber[number]
			if !r.protoField(n, wireType, yield) {
				return
			}
		}
	}
}

func (r *reader) protoField(n node, wireType protowire.Type, yield func(int, node) bool) bool {
	want := n.decl.kind.wireType()
	switch {
	case wireType == want:
		return yield(n.decl.number, n)
	case wireType != protowire.BytesType || !n.decl.repeated:
		return true
	}
	for rest := n.b; len(rest) > 0 && r.err == nil; { // numbers, packed
		var size int
		if want == protowire.VarintType {
			n.bits, size = protowire.ConsumeVarint(rest)
		} else {
			n.bits, size = protowire.ConsumeFixed64(rest)
		}
		if size < 0 {
			r.fail("%s: a number is malformed or cut off", n.decl.name)
			return false
		}
		rest = rest[size:]
		if !yield(n.decl.number, n) {
			return false
		}
	}
	return true
}

func (k kind) wireType() protowire.Type {
	switch k {
	case varintKind, zigzagKind:
		return protowire.VarintType
	case fixed64Kind, doubleKind:
		return protowire.Fixed64Type
	default:
		return protowire.BytesType
	}
}
