package otlp

import "google.golang.org/protobuf/encoding/protowire"

// nextProto goes to the next field in protobuf's wire format. A field of another
// wire type than its declaration's is an unknown one, as everywhere.
func (c *cursor) nextProto() bool {
	for c.r.err == nil {
		if len(c.packed) > 0 {
			return c.nextPacked()
		}
		if len(c.rest) == 0 {
			return false
		}
		number, wireType, ok := c.consume()
		if !ok {
			return false
		}
		if int(number) >= len(c.schema.byNumber) || c.schema.byNumber[number] == nil {
			continue
		}
		c.number, c.decl = int(number), c.schema.byNumber[number]
		switch want := c.decl.kind.wireType(); {
		case wireType == want:
			return true
		case wireType == protowire.BytesType && c.decl.repeated:
			c.packed = c.b
		}
	}
	return false
}

// consume reads one field, known or not.
func (c *cursor) consume() (number protowire.Number, wireType protowire.Type, ok bool) {
	number, wireType, size := protowire.ConsumeTag(c.rest)
	if size < 0 {
		c.r.fail("%s: a field's tag is malformed", c.schema.name)
		return 0, 0, false
	}
	b := c.rest[size:]
	c.b, c.bits = nil, 0
	switch wireType {
	case protowire.VarintType:
		c.bits, size = protowire.ConsumeVarint(b)
	case protowire.Fixed64Type:
		c.bits, size = protowire.ConsumeFixed64(b)
	case protowire.Fixed32Type:
		_, size = protowire.ConsumeFixed32(b)
	case protowire.BytesType:
		c.b, size = protowire.ConsumeBytes(b)
	default:
		size = -1 // groups: no message of ours ever had one
	}
	if size < 0 {
		c.r.fail("%s: field %d is malformed or cut off", c.schema.name, number)
		return 0, 0, false
	}
	c.rest = b[size:]
	return number, wireType, true
}

// nextPacked goes to the next of the numbers that one field holds.
func (c *cursor) nextPacked() bool {
	var size int
	if c.decl.kind.wireType() == protowire.VarintType {
		c.bits, size = protowire.ConsumeVarint(c.packed)
	} else {
		c.bits, size = protowire.ConsumeFixed64(c.packed)
	}
	if size < 0 {
		c.r.fail("%s: a number is malformed or cut off", c.decl.name)
		return false
	}
	c.packed = c.packed[size:]
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
