// Package probe finds out whether an outside address and port lead back here:
// from the outside, as an echo-IP service sees it, and from the inside, by
// hairpin (RFC 4787 section 6).
//
// Every socket is bound to the gateway's interface and to its local address.
// Either alone is not enough: bound to the interface only, the kernel may choose
// another source address; bound to the address only, packets still leave by the
// default route, with a source that its router drops.
//
// The answers are kept apart, because they say different things. Inside: does
// anything accept connections here. Observed: did a host on the internet reach
// the port. Probed: does the outside address lead back from this host's own
// network. Each is Unknown unless somebody really tried. What an upstream router
// says it grants (package portmap) is a fourth answer and proves none of these.
package probe
