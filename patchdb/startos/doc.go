// Package startos reads and writes the database files of StartOS (Patch-DB as
// its Rust crate writes it): a CBOR sequence (RFC 8742) of a revision, a value,
// and one array of JSON Patch operations for each later revision.
//
// That format has no checksums, and its reader forgives: it drops what it
// cannot read at the end, and steps over patches that cannot be applied. Decode
// comes to the same document, and says what it had to leave out.
package startos
