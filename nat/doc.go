// Package nat publishes ports of inside hosts at outside addresses, so that
// every client that should reach them does: outside, on the LAN, on the host
// itself, next to the target, and the target itself (hairpin, RFC 4787
// section 6).
package nat
