package otlp

import (
	"encoding/base64"
	"encoding/json"
	"maps"
	"math"
	"slices"
	"strconv"

	"github.com/theazo/observability/shared/telemetry"
)

type valueKind uint8

const (
	null valueKind = iota
	text
	boolean
	integer
	double
	composite
)

// value is the value of an attribute. Lists and maps are JSON from the start:
// nobody here looks into them.
type value struct {
	kind valueKind
	text string // text; composite: JSON
	bits uint64 // of the others
}

// value reads an AnyValue that stands depth lists and maps deep.
func (d *decoder) value(n node, depth int) value { return d.valueUpTo(MaxValue, n, depth) }

// valueUpTo is value for a text of at most that many bytes.
func (d *decoder) valueUpTo(most int, n node, depth int) (out value) {
	for c := n.walk(anyValue); c.next(); {
		switch c.number {
		case 1:
			out = value{kind: text, text: d.short(c.text(), most)}
		case 2:
			out = value{kind: boolean}
			if c.isTrue() {
				out.bits = 1
			}
		case 3:
			out = value{kind: integer, bits: uint64(c.int())} //nolint:gosec // its bits
		case 4:
			out = value{kind: double, bits: math.Float64bits(c.float())}
		case 5:
			out = d.list(c.node, depth+1)
		case 6:
			out = d.members(c.node, depth+1)
		case 7:
			out = value{kind: text, text: d.base64(c.bytes())}
		}
	}
	return out
}

// base64 is how JSON has bytes.
func (d *decoder) base64(b []byte) string {
	if most := MaxValue / 4 * 3; len(b) > most {
		d.res.Dropped[CutText]++
		b = b[:most]
	}
	return base64.StdEncoding.EncodeToString(b)
}

func (d *decoder) list(n node, depth int) value {
	if depth > MaxDepth {
		d.res.Dropped[CutValue]++
		return value{}
	}
	b, count, lost := []byte{'['}, 0, false
	for c := n.walk(valueList); c.next(); {
		if lost = lost || count == MaxElements; lost {
			continue
		}
		before := len(b)
		if count > 0 {
			b = append(b, ',')
		}
		e := d.value(c.node, depth)
		if b = e.append(b); len(b) > MaxValue {
			b, lost = b[:before], true
			continue
		}
		count++
	}
	if lost {
		d.res.Dropped[CutValue]++
	}
	return value{kind: composite, text: string(append(b, ']'))}
}

// members is a map. It loses what does not fit, like a list.
func (d *decoder) members(n node, depth int) value {
	if depth > MaxDepth {
		d.res.Dropped[CutValue]++
		return value{}
	}
	var names names
	b, lost := []byte{'{'}, false
	for c := n.walk(keyValueList); c.next(); {
		if lost = lost || len(names.list) == MaxAttributes; lost {
			continue
		}
		key, e := d.keyValue(c.node, depth)
		if len(key) > MaxKey {
			d.res.Dropped[Attributes]++
			continue
		}
		if !names.add(key) {
			d.res.Dropped[Duplicate]++
			continue
		}
		before := len(b)
		if len(b) > 1 {
			b = append(b, ',')
		}
		b = append(telemetry.AppendString(b, key), ':')
		if b = e.append(b); len(b) > MaxValue {
			b, lost = b[:before], true
		}
	}
	if lost {
		d.res.Dropped[CutValue]++
	}
	return value{kind: composite, text: string(append(b, '}'))}
}

func (d *decoder) keyValue(n node, depth int) (key string, v value) {
	for c := n.walk(keyValue); c.next(); {
		switch c.number {
		case 1:
			key = clean(c.text())
		case 2:
			v = d.value(c.node, depth)
		}
	}
	return key, v
}

// append appends the value as JSON. What JSON has no number for is a word.
func (v *value) append(b []byte) []byte {
	switch v.kind {
	case text:
		return telemetry.AppendString(b, v.text)
	case boolean:
		return strconv.AppendBool(b, v.bits != 0)
	case integer:
		return strconv.AppendInt(b, int64(v.bits), 10) //nolint:gosec // its bits
	case double:
		f := math.Float64frombits(v.bits)
		switch {
		case math.IsNaN(f):
			return append(b, `"NaN"`...)
		case math.IsInf(f, 1):
			return append(b, `"Infinity"`...)
		case math.IsInf(f, -1):
			return append(b, `"-Infinity"`...)
		}
		return strconv.AppendFloat(b, f, 'g', -1, 64)
	case composite:
		return append(b, v.text...)
	default:
		return append(b, "null"...)
	}
}

// plain is the value as a text: a string without quotes, all else as in JSON.
func (v *value) plain() string {
	switch v.kind {
	case text, composite:
		return v.text
	case null:
		return ""
	default:
		return string(v.append(nil))
	}
}

type attribute struct {
	key string
	value
}

// attributes are those of one record, as far as they are taken.
type attributes struct {
	list    []attribute
	names   names
	dropped uint64 // by the emitter and here
}

// lost counts what the emitter itself dropped.
func (a *attributes) lost(n uint64) { a.dropped += min(n, math.MaxUint32) }

// attribute adds a KeyValue, unless it is over a limit or content.
func (d *decoder) attribute(a *attributes, n node) {
	if len(a.list) == MaxAttributes {
		a.dropped++
		d.res.Dropped[Attributes]++
		return
	}
	key, v := d.keyValue(n, 0)
	switch {
	case key == "" || len(key) > MaxKey:
		a.dropped++
		d.res.Dropped[Attributes]++
	case !d.Content && (v.kind == text || v.kind == composite) && d.isContent(key):
		d.res.Dropped[Content]++
	case !a.names.add(key):
		d.res.Dropped[Duplicate]++
	default:
		a.list = append(a.list, attribute{key, v})
	}
}

// again empties a for the next record.
func (a *attributes) again() *attributes {
	a.list, a.dropped = a.list[:0], 0
	a.names = names{list: a.names.list[:0]}
	return a
}

// clone is a copy that can be added to.
func (a *attributes) clone() attributes {
	return attributes{
		list: slices.Clone(a.list), dropped: a.dropped,
		names: names{list: slices.Clone(a.names.list), set: maps.Clone(a.names.set)},
	}
}

// text is the value of a textual attribute; empty where there is none.
func (a *attributes) text(key string) string {
	for i := range a.list {
		if a.list[i].key == key && a.list[i].kind == text {
			return a.list[i].text
		}
	}
	return ""
}

// set adds an attribute of ours, unless the emitter has one of that name.
func (a *attributes) set(key, value string) {
	if value != "" && a.names.add(key) {
		a.list = append(a.list, textAttribute(key, value))
	}
}

func textAttribute(key, s string) attribute {
	return attribute{key, value{kind: text, text: s}}
}

// The names by which OpenTelemetry says elsewhere how much was dropped.
const (
	droppedAttributes = "otel.dropped_attributes_count"
	droppedEvents     = "otel.dropped_events_count"
	droppedLinks      = "otel.dropped_links_count"

	droppedRoom = 128 // bytes of all three with their numbers
)

// object is the attributes as a JSON object of at most that many bytes; nil
// where there is none. Those that do not fit are dropped; that any was dropped,
// here or by the emitter, is said in one of its own.
func (d *decoder) object(a *attributes, most int, notes ...attribute) json.RawMessage {
	if len(a.list) == 0 && a.dropped == 0 && len(notes) == 0 {
		return nil
	}
	b := append(make([]byte, 0, 512), '{')
	member := func(e *attribute) {
		if len(b) > 1 {
			b = append(b, ',')
		}
		b = append(telemetry.AppendString(b, e.key), ':')
		b = e.append(b)
	}
	for i := range a.list {
		before := len(b)
		if member(&a.list[i]); len(b) > most-droppedRoom {
			b = b[:before]
			a.dropped++
			d.res.Dropped[AttributeBytes]++
		}
	}
	if a.dropped > 0 {
		notes = append(notes, number(droppedAttributes, a.dropped))
	}
	for i := range notes {
		if a.names.add(notes[i].key) {
			member(&notes[i])
		}
	}
	if len(b) == 1 {
		return nil
	}
	return append(b, '}')
}

func number(key string, n uint64) attribute {
	return attribute{key, value{kind: integer, bits: n}}
}

// names holds the names of an object's members, to find the second of one name.
type names struct {
	list []string
	set  map[string]struct{} // when there are many
}

func (n *names) add(name string) bool {
	const many = 16
	if n.set == nil {
		if slices.Contains(n.list, name) {
			return false
		}
		if len(n.list) == many {
			n.set = make(map[string]struct{}, 2*many)
			for _, known := range n.list {
				n.set[known] = struct{}{}
			}
		}
	}
	if n.set != nil {
		if _, known := n.set[name]; known {
			return false
		}
		n.set[name] = struct{}{}
	}
	n.list = append(n.list, name)
	return true
}
