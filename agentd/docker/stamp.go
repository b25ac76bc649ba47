package docker

import (
	"encoding/binary"
	"time"
)

// stampParser reads RFC 3339 timestamps with up to nine digits of a second, as
// the engine writes them. It remembers the last second it has seen, because
// neighbouring lines share it: then only the fraction is work.
type stampParser struct {
	second [len("2006-01-02T15:04:05")]byte
	unix   int64
}

// parse returns the time in UTC. It takes a subset of what time.Parse takes
// with time.RFC3339Nano, and reads it the same.
func (p *stampParser) parse(b []byte) (time.Time, bool) {
	const prefix = len(p.second)
	if len(b) < prefix+1 {
		return time.Time{}, false
	}
	if string(b[:prefix]) != string(p.second[:]) {
		unix, ok := parseSecond(b[:prefix])
		if !ok {
			return time.Time{}, false
		}
		copy(p.second[:], b)
		p.unix = unix
	}
	b = b[prefix:]
	if len(b) == len(".123456789Z") && b[0] == '.' && b[10] == 'Z' {
		if nanos, ok := nineDigits(b[1:]); ok {
			return time.Unix(p.unix, nanos).UTC(), true
		}
	}
	var nanos int64
	if b[0] == '.' {
		digits, scale := 0, int64(100_000_000)
		for b = b[1:]; len(b) > 0 && isDigit(b[0]); b = b[1:] {
			if digits++; digits > 9 {
				return time.Time{}, false
			}
			nanos += int64(b[0]-'0') * scale
			scale /= 10
		}
		if digits == 0 {
			return time.Time{}, false
		}
	}
	if len(b) == 1 && b[0] == 'Z' {
		return time.Unix(p.unix, nanos).UTC(), true
	}
	offset, ok := parseOffset(b)
	unix := p.unix - offset
	return time.Unix(unix, nanos).UTC(), ok && unix >= year0 && unix <= year9999
}

// The first and the last second that can be written down again.
const (
	year0    = -62167219200
	year9999 = 253402300799
)

// parseSecond reads "2006-01-02T15:04:05" as seconds since 1970 in UTC.
func parseSecond(b []byte) (int64, bool) {
	if b[4] != '-' || b[7] != '-' || b[10] != 'T' || b[13] != ':' || b[16] != ':' {
		return 0, false
	}
	century, ok0 := twoDigits(b[0:])
	year, ok1 := twoDigits(b[2:])
	month, ok2 := twoDigits(b[5:])
	day, ok3 := twoDigits(b[8:])
	hour, ok4 := twoDigits(b[11:])
	minute, ok5 := twoDigits(b[14:])
	second, ok6 := twoDigits(b[17:])
	if !ok0 || !ok1 || !ok2 || !ok3 || !ok4 || !ok5 || !ok6 {
		return 0, false
	}
	if hour > 23 || minute > 59 || second > 59 {
		return 0, false
	}
	t := time.Date(century*100+year, time.Month(month), day, hour, minute, second, 0, time.UTC)
	if t.Day() != day || int(t.Month()) != month {
		return 0, false // time.Date has made the 31st of June a 1st of July
	}
	return t.Unix(), true
}

// parseOffset reads "+02:00" as seconds east of UTC.
func parseOffset(b []byte) (int64, bool) {
	if len(b) != len("+02:00") || b[0] != '+' && b[0] != '-' || b[3] != ':' {
		return 0, false
	}
	hours, ok1 := twoDigits(b[1:])
	minutes, ok2 := twoDigits(b[4:])
	if !ok1 || !ok2 || hours > 23 || minutes > 59 {
		return 0, false
	}
	seconds := int64(hours*3600 + minutes*60)
	if b[0] == '-' {
		seconds = -seconds
	}
	return seconds, true
}

// nineDigits reads the fraction of most timestamps, eight digits at once.
func nineDigits(b []byte) (int64, bool) {
	const zeros = 0x3030303030303030
	x := binary.LittleEndian.Uint64(b) - zeros
	if (x|(x+0x7676767676767676))&0x8080808080808080 != 0 || !isDigit(b[8]) {
		return 0, false
	}
	// Neighbours are put together: digits, pairs, fours.
	x = x*10 + x>>8
	x = (x&0x000000ff000000ff*(1_000_000<<32+100) + x>>16&0x000000ff000000ff*(10_000<<32+1)) >> 32
	return int64(x&0xffffffff)*10 + int64(b[8]-'0'), true
}

func twoDigits(b []byte) (int, bool) {
	return int(b[0]-'0')*10 + int(b[1]-'0'), isDigit(b[0]) && isDigit(b[1])
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }
