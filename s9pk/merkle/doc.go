// Package merkle holds the tree that a StartOS s9pk v2 package signs: BLAKE3
// hashes, directories with their tables of contents, commitments to a root, and
// hashing of large contents on several cores. It knows nothing of packages, keys
// or files on disk.
//
// A directory is stored as a table of contents:
//
//	count    varint (LEB128)
//	entries  count times:
//	    name      varint length, then that many bytes of UTF-8
//	    hash      32 bytes: BLAKE3 of the content, or the directory's sighash
//	    size      u64: content length, or the signed bound of the child's table
//	    type      u8: 0 missing, 1 file, 2 directory
//	    position  u64, for files and directories
//	    length    u64, for directories: bytes of the child's table
//
// The sighash of a directory is BLAKE3 of the same table with every entry
// written as missing, in byte order of the names. So names, sizes and hashes are
// signed; positions, lengths, order, varint forms and the type itself are not.
//
// # Exchanged types
//
// Because the type is not signed, a file whose bytes are the sighash input of
// some directory can be presented as that directory, and the other way round.
// That needs a directory whose signed size equals the length of its sighash
// input, which means that nothing in it was present when it was signed.
// [Directory.Exchangeable] finds those; readers refuse them.
package merkle
