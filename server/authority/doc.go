// Package authority is the server's own certificate authority. It makes a root
// once, keeps it in a folder that only the server reads, and issues short-lived
// certificates for the addresses and names at which clients reach the server:
// those of the machine at first, and any other of its addresses when the first
// client connects to it.
package authority
