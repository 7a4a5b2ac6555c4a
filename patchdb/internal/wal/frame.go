package wal

import (
	"encoding/binary"
	"hash/crc32"
)

// Sizes of the fixed parts.
const (
	HeaderSize = 32 // of the file
	FrameSize  = 32 // of a record, before its payload
)

// MaxPayload is the longest payload of a record.
const MaxPayload = 1<<32 - 1 - 8

// Kind says what a record is.
type Kind uint32

// The kinds, each far from the others and from zero in bits.
const (
	KindSnapshot Kind = 0x50414e53 // "SNAP"
	KindPatch    Kind = 0x48435450 // "PTCH"
	KindSeal     Kind = 0x4c414553 // "SEAL"
)

const (
	magic   = "patchdb\n"
	version = 1
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// AppendHeader appends a file header.
func AppendHeader(b []byte, salt uint64) []byte {
	n := len(b)
	b = append(b, magic...)
	b = binary.LittleEndian.AppendUint32(b, version)
	b = binary.LittleEndian.AppendUint32(b, 0)
	b = binary.LittleEndian.AppendUint64(b, salt)
	b = binary.LittleEndian.AppendUint32(b, 0)
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b[n:n+28], castagnoli))
}

// parseHeader returns the salt, or the reason why b is no header.
func parseHeader(b []byte) (salt uint64, reason string) {
	switch {
	case len(b) == 0:
		return 0, "the file is empty"
	case len(b) < HeaderSize:
		return 0, "shorter than its header"
	case string(b[:8]) != magic:
		return 0, "not a patchdb file"
	case binary.LittleEndian.Uint32(b[28:]) != crc32.Checksum(b[:28], castagnoli):
		return 0, "bad header checksum"
	case binary.LittleEndian.Uint32(b[8:]) != version:
		return 0, "written by a later version"
	}
	return binary.LittleEndian.Uint64(b[16:]), ""
}

// Frame is a record's header.
type Frame struct {
	Kind    Kind
	Length  uint32 // of the payload without its padding
	ID      uint64
	Durable int64
	sum     uint32
}

// padded is the payload's length in the file.
func padded(n int64) int64 { return (n + 7) &^ 7 }

// Space is the length of a record in the file.
func Space(payload int) int64 { return FrameSize + padded(int64(payload)) }

// AppendRecord appends a record that is to stand at offset.
func AppendRecord(b []byte, salt uint64, offset int64, k Kind, id uint64, durable int64, payload []byte) []byte {
	n := len(b)
	b = append(b, make([]byte, FrameSize)...)
	b = append(b, payload...)
	for len(b[n:])%8 != 0 {
		b = append(b, 0)
	}
	PutFrame(b[n:], salt, offset, k, id, durable, len(payload), crc32.Checksum(b[n+FrameSize:], castagnoli))
	return b
}

// PutFrame fills in a record's header; sum is the checksum of the padded payload.
func PutFrame(b []byte, salt uint64, offset int64, k Kind, id uint64, durable int64, length int, sum uint32) {
	binary.LittleEndian.PutUint32(b[0:], uint32(k))
	binary.LittleEndian.PutUint32(b[4:], uint32(length))
	binary.LittleEndian.PutUint64(b[8:], id)
	binary.LittleEndian.PutUint64(b[16:], uint64(durable))
	binary.LittleEndian.PutUint32(b[24:], sum)
	binary.LittleEndian.PutUint32(b[28:], frameSum(b, salt, offset))
}

// Sum continues a payload checksum, for a payload written in pieces.
func Sum(sum uint32, b []byte) uint32 { return crc32.Update(sum, castagnoli, b) }

func frameSum(b []byte, salt uint64, offset int64) uint32 {
	var place [16]byte
	binary.LittleEndian.PutUint64(place[:], salt)
	binary.LittleEndian.PutUint64(place[8:], uint64(offset))
	return crc32.Update(crc32.Checksum(place[:], castagnoli), castagnoli, b[:28])
}

func parseFrame(b []byte, salt uint64, offset int64) (Frame, bool) {
	f := Frame{
		Kind:    Kind(binary.LittleEndian.Uint32(b[0:])),
		Length:  binary.LittleEndian.Uint32(b[4:]),
		ID:      binary.LittleEndian.Uint64(b[8:]),
		Durable: int64(binary.LittleEndian.Uint64(b[16:])),
		sum:     binary.LittleEndian.Uint32(b[24:]),
	}
	switch f.Kind {
	case KindSnapshot, KindPatch, KindSeal:
		return f, binary.LittleEndian.Uint32(b[28:]) == frameSum(b, salt, offset)
	}
	return f, false
}
