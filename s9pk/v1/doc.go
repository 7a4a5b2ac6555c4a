// Package v1 reads packages of the older format, StartOS s9pk v1, and converts
// them to version 2. There is no writer of version 1.
//
//	0    3   magic 3b 3b 01
//	3    32  Ed25519 public key
//	35   64  Ed25519ph signature, context "s9pk", over all bytes after the header
//	99   4   u32: length of the table that follows
//	103      entries: length of the label u8, label, position u64, length u64
//
// The header ends with its table. Neither is signed: whoever changes a position
// can exchange sections of equal meaning, but not their bytes. The sections are
// manifest (CBOR, names in kebab-case), license, instructions, icon,
// docker_images (tar), assets (tar) and, in some packages, scripts (JavaScript).
//
// # Conversion
//
// Convert makes the package that StartOS makes of it, without its detour
// through a container tool: images are taken out of docker_images directly. It
// keeps the instructions, which StartOS drops. The result has a new signer.
package v1
