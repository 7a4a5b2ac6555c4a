// Package wg keeps WireGuard devices as a Config says: keys, peers, allowed IPs
// and the device's own addresses, with the kernel's WireGuard where there is one
// and in user space (wireguard-go over TUN) elsewhere.
//
// A Config is what wg-quick(8) reads from a .conf file: Parse and Config.String
// turn one into the other. Apply makes a device match, in one step for keys and
// peers: a peer that stays keeps its session, others come and go.
//
// Routes are not made here: which traffic takes a tunnel is policy, and the
// caller's. Hooks of the file (PreUp and so on) are never run and not kept.
package wg
