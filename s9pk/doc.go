// Package s9pk reads, verifies, writes and signs StartOS s9pk v2 packages, as
// StartOS 0.4.0-beta.10 defines them, byte for byte.
//
// # Layout
//
// Integers are big-endian; positions count from the first byte of the file.
//
//	0    3   magic 3b 3b 02
//	3    32  Ed25519 public key of the signer
//	35   64  Ed25519ph signature, context "s9pk", over the next 40 bytes
//	99   32  root sighash
//	131  8   root max size: signed bound of the root table's length
//	139  8   position of the root table (not signed)
//	147  8   length of the root table (not signed)
//	155      root table; then, breadth first in the order of the tables,
//	         the tables of directories and the bodies of files
//
// Package merkle describes the tables. Bodies are stored as they are; their hash
// is plain BLAKE3. An entry can be left out of a copy without touching the
// signature: its name, hash and size stay.
//
// # What is proven when
//
// Open proves header, signature and every table before it returns. Bodies are
// proven when they are read: File.ReadAll before it returns, File.Open group by
// group before a byte is handed on, File.Stream with its last bytes, Verify all
// of them. A StreamVerifier proves a package while it arrives. A signature says
// that the holder of some key made the package; which key may be trusted for
// what is for the caller to say: see Archive.Signer and Options.Commitment.
//
// Not signed are positions, lengths of tables, the order and types of entries, and
// bytes that no table points at. Whoever changes those can leave entries out, and
// that is all: what is left leads to the signed bytes or is refused. TestFlips
// names the bits of a small archive that may change unnoticed.
//
// # Stricter than the reference
//
// Some archives that StartOS opens are refused with ErrUnsafe, because what
// reads them next could be fooled: names that are empty, ".", "..", or hold a
// slash or a NUL byte; a name twice in one directory; files of 2^63 bytes and
// more; a directory that could as well be a file, and the one-byte file that
// could as well be an empty directory; more than 16 directories in one another;
// bodies that overlap so much that proving them would take several times the
// archive's length. Options.Lenient opens all of these for inspection: what they
// hold can be listed, read and verified, in memory bounded by Options.Limits, but
// not extracted or written again. A StreamVerifier refuses overlaps all the same,
// since it would have to follow them at once. A table that contains itself cannot
// be built, since each is proven before anything in it is followed.
package s9pk
