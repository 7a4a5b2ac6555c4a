// Package portmap asks the router before this host to forward ports: by PCP
// (RFC 6887), by NAT-PMP (RFC 6886), or by UPnP-IGD, whichever it speaks, tried
// in that order.
//
// A mapping that a router grants is a promise, not a proof: whether the port can
// be reached is for package probe to find out.
//
// Client asks once. Keeper takes the whole wanted set of mappings, renews them
// in time, asks again for all when the router has lost its state, and gives back
// what is no longer wanted.
package portmap
