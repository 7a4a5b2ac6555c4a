// Package wal frames the records of a patchdb file.
//
// A file is a header, one snapshot record, and one patch record for each later
// revision:
//
//	header   8 magic "patchdb\n"   4 version   4 zero   8 salt   4 zero   4 crc
//	record   4 kind   4 length   8 revision   8 durable   4 payload crc   4 header crc
//	         payload, padded with zeros to a multiple of 8
//	seal     a record of kind seal without payload, behind the last durable one
//	zeros    up to the end of the file: room written ahead
//
// All numbers are little endian. Checksums are CRC-32C. A record's header crc
// also covers the file's salt and the record's own offset, so that bytes of
// another file, or from another place, are never taken for a record.
//
// Durable is the length of the file that was on stable storage when the record
// was written. It is what tells the two kinds of bad bytes apart:
//
//   - a torn tail: an unreadable record, and nothing behind it that was written
//     after it had been synced. Nobody was told that it is there; it is cut.
//   - damage: an unreadable record at an offset below the durable length that a
//     later record or the seal gives. It had been acknowledged; reading stops
//     with a CorruptError.
//
// The seal is written behind each synced batch without a sync of its own, and
// the next batch overwrites it.
package wal
