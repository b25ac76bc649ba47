package spool

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"strconv"
	"time"
)

// Sizes and marks of the format, version 1 (doc.go has the picture).
const (
	version    = 1
	fileHeader = 64
	fileMagic  = "thzspool"
	fileSuffix = ".seg"

	blockHeader = 48
	blockMagic  = 0x4b_42_7a_74 // "tzBK"
	blockAlign  = 8

	kindFrame   = 1
	kindTrailer = 2

	flagFirst     = 1 << 0
	flagLast      = 1 << 1
	flagTest      = 1 << 2
	flagTombstone = 1 << 3
	flagMoved     = 1 << 4 // copied out of another file, where it had been accepted
	flagsKnown    = flagFirst | flagLast | flagTest | flagTombstone | flagMoved
)

// Limits of what one Append takes.
const (
	MaxOrg     = 255      // bytes
	MaxBody    = 8 << 20  // bytes of one frame
	MaxTrailer = 16 << 20 // bytes of one Append's positions and places, encoded
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// fileID is what a segment file's name says.
type fileID struct{ first, epoch uint64 }

func (f fileID) name() string { return fmt.Sprintf("%020d-%016x%s", f.first, f.epoch, fileSuffix) }

func parseFileName(name string) (fileID, bool) {
	const digits = 20
	if len(name) != digits+1+16+len(fileSuffix) || name[digits] != '-' {
		return fileID{}, false
	}
	first, err1 := strconv.ParseUint(name[:digits], 10, 64)
	epoch, err2 := strconv.ParseUint(name[digits+1:digits+1+16], 16, 64)
	f := fileID{first: first, epoch: epoch}
	return f, err1 == nil && err2 == nil && epoch != 0 && first != 0 && f.name() == name
}

// seed starts the checksums of all blocks of this file.
func (f fileID) seed() uint32 {
	var b [16]byte
	binary.LittleEndian.PutUint64(b[:], f.first)
	binary.LittleEndian.PutUint64(b[8:], f.epoch)
	return crc32.Checksum(b[:], castagnoli)
}

// header is for people and for other programs: recovery needs the name alone.
func (f fileID) header(begun time.Time) []byte {
	b := make([]byte, fileHeader)
	copy(b, fileMagic)
	b[8] = version
	binary.LittleEndian.PutUint64(b[16:], f.epoch)
	binary.LittleEndian.PutUint64(b[24:], f.first)
	binary.LittleEndian.PutUint64(b[32:], uint64(begun.UnixMicro()))
	binary.LittleEndian.PutUint32(b[fileHeader-4:], crc32.Checksum(b[:fileHeader-4], castagnoli))
	return b
}

// begunAt reads when the file was begun; the zero time where the header is damaged.
func begunAt(b []byte) time.Time {
	if len(b) < fileHeader || binary.LittleEndian.Uint32(b[fileHeader-4:]) != crc32.Checksum(b[:fileHeader-4], castagnoli) {
		return time.Time{}
	}
	return time.UnixMicro(int64(binary.LittleEndian.Uint64(b[32:]))).UTC() //nolint:gosec // two's complement
}

// block is the head of one block.
type block struct {
	kind, flags, lane, class uint8
	org                      string
	body                     uint32 // length
	append                   uint64
	first                    uint64
	count                    uint32
	bodyCRC, previous, crc   uint32
}

func (b *block) last() uint64 { return b.first + uint64(b.count) - 1 }

// size is what the block takes in its file.
func (b *block) size() int64 { return blockSize(len(b.org), int(b.body)) }

func blockSize(org, body int) int64 {
	return (int64(blockHeader+org+body) + blockAlign - 1) &^ (blockAlign - 1)
}

// appendBlock appends b with its body to dst, and fills in its checksums.
func appendBlock(dst []byte, b *block, body []byte, seed uint32) []byte {
	b.body = uint32(len(body)) //nolint:gosec // Append has checked it
	start := len(dst)
	dst = append(dst, make([]byte, blockHeader)...)
	dst = append(dst, b.org...)
	bodyStart := len(dst)
	dst = append(dst, body...)
	for (len(dst)-start)%blockAlign != 0 {
		dst = append(dst, 0)
	}
	b.bodyCRC = crc32.Update(seed, castagnoli, dst[bodyStart:])
	le, head := binary.LittleEndian, dst[start:bodyStart]
	le.PutUint32(head, blockMagic)
	head[4], head[5], head[6], head[7], head[8], head[9] = version, b.kind, b.flags, b.lane, b.class, byte(len(b.org)) //nolint:gosec // at most MaxOrg
	le.PutUint32(head[12:], b.body)
	le.PutUint64(head[16:], b.append)
	le.PutUint64(head[24:], b.first)
	le.PutUint32(head[32:], b.count)
	le.PutUint32(head[36:], b.bodyCRC)
	le.PutUint32(head[40:], b.previous)
	b.crc = headCRC(head, seed)
	le.PutUint32(head[44:], b.crc)
	return dst
}

// headCRC covers all of a head (head and org) but the checksum itself.
func headCRC(head []byte, seed uint32) uint32 {
	return crc32.Update(crc32.Update(seed, castagnoli, head[:44]), castagnoli, head[blockHeader:])
}

var errNoBlock = errors.New("no whole block here")

// parseHead reads the head of a block. b holds at least the head; intern gives
// the organisation as a string.
func parseHead(b []byte, seed uint32, intern func([]byte) string) (block, error) {
	le := binary.LittleEndian
	if len(b) < blockHeader || le.Uint32(b) != blockMagic || b[4] != version {
		return block{}, errNoBlock
	}
	end := blockHeader + int(b[9])
	if len(b) < end || le.Uint32(b[44:]) != headCRC(b[:end], seed) {
		return block{}, errNoBlock
	}
	h := block{
		kind: b[5], flags: b[6], lane: b[7], class: b[8], org: intern(b[blockHeader:end]),
		body: le.Uint32(b[12:]), append: le.Uint64(b[16:]), first: le.Uint64(b[24:]), count: le.Uint32(b[32:]),
		bodyCRC: le.Uint32(b[36:]), previous: le.Uint32(b[40:]), crc: le.Uint32(b[44:]),
	}
	return h, h.check()
}

// check refuses what this release cannot have written, whatever its checksum.
func (b *block) check() error {
	switch {
	case b.append == 0 || b.flags&^flagsKnown != 0 || b.lane >= Lanes:
		return errNoBlock
	case b.kind == kindFrame && (b.first == 0 || b.count == 0 || b.first > maxSequence || b.body > MaxBody):
		return errNoBlock
	case b.kind == kindTrailer && b.body > MaxTrailer:
		return errNoBlock
	case b.kind != kindFrame && b.kind != kindTrailer:
		return errNoBlock
	}
	return nil
}

// maxSequence keeps First + Count far from overflow.
const maxSequence = 1 << 62

// checkBody reports whether bytes (body and padding) are those that were written.
func (b *block) checkBody(bytes []byte, seed uint32) bool {
	return crc32.Update(seed, castagnoli, bytes) == b.bodyCRC
}

// findMagic returns the first place in b, at a multiple of the alignment from
// its start, that may begin a block; -1: none.
func findMagic(b []byte) int {
	var magic [4]byte
	binary.LittleEndian.PutUint32(magic[:], blockMagic)
	for at := 0; ; {
		i := bytes.Index(b[at:], magic[:])
		if i < 0 {
			return -1
		}
		if at += i; at%blockAlign == 0 {
			return at
		}
		at++
	}
}

// place is what a trailer says of one frame of its append, so that a frame whose
// head is damaged is missed even where no later frame of its sequence is there.
type place struct {
	org   string
	lane  uint8
	first uint64
	count uint32
}

// appendTrailer encodes the body of a trailer: the places of the append's
// frames and its positions. places hold no trailer.
func appendTrailer(dst []byte, frames []found, positions map[string][]byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(frames)))
	for i := range frames {
		b := &frames[i]
		dst = append(appendBytes(dst, b.org), b.lane)
		dst = binary.AppendUvarint(dst, b.first)
		dst = binary.AppendUvarint(dst, uint64(b.count))
	}
	return appendPositions(dst, sortedKeys(positions), positions)
}

// readPlaces reads the first part of a trailer and leaves the positions in d.
func readPlaces(d *decoder) []place {
	var list []place
	for n := d.uvarint(); n > 0 && d.err == nil; n-- {
		p := place{org: string(d.bytes(d.uvarint())), lane: d.byte(), first: d.uvarint(), count: uint32(d.uvarint())} //nolint:gosec // written from 32 bits
		if d.err == nil && p.lane < Lanes && p.first <= maxSequence {
			list = append(list, p)
		}
	}
	return list
}

// appendPositions encodes positions; nil values delete.
func appendPositions(dst []byte, keys []string, positions map[string][]byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(keys)))
	for _, k := range keys {
		dst = appendBytes(dst, k)
		v := positions[k]
		if v == nil {
			dst = binary.AppendUvarint(dst, 0)
			continue
		}
		dst = binary.AppendUvarint(dst, uint64(len(v))+1)
		dst = append(dst, v...)
	}
	return dst
}

func appendBytes[T ~string | ~[]byte](dst []byte, s T) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

// readPositions applies encoded positions to a map. What it reads has passed a
// checksum; it still never trusts a length.
func readPositions(r *decoder, to map[string][]byte) {
	for n := r.uvarint(); n > 0 && r.err == nil; n-- {
		k := string(r.bytes(r.uvarint()))
		length := r.uvarint()
		if length == 0 {
			delete(to, k)
			continue
		}
		v := r.bytes(length - 1)
		if r.err == nil {
			to[k] = bytes.Clone(v)
			if v == nil {
				to[k] = []byte{}
			}
		}
	}
}

var errShort = errors.New("it ends early")

// decoder takes values off the front of b; after a failure it returns zeros.
type decoder struct {
	b   []byte
	err error
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.b, d.err = nil, errShort
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) bytes(n uint64) []byte {
	if n > uint64(len(d.b)) {
		d.b, d.err = nil, errShort
		return nil
	}
	v := d.b[:n:n]
	d.b = d.b[n:]
	return v
}
