// Package nat publishes ports of inside hosts at outside addresses, so that
// every client that should reach them does: outside, on the LAN, on the host
// itself, next to the target, and the target itself (hairpin, RFC 4787
// section 6).
//
//	c, err := nat.New(nat.Options{})
//	err = c.Apply(ctx, nat.Config{Forwards: []nat.Forward{{
//		Name:   "web",
//		Source: netip.MustParseAddrPort("203.0.113.7:443"),
//		Target: nat.Target{Addr: netip.MustParseAddr("10.59.0.2"), Prefix: 24, Port: 8443},
//	}}})
//
// # Which source address the target sees
//
//	client                                       source seen            why
//	outside, or on the LAN                       its own                replies come back through this host anyway
//	this host, at any published address          this host's, on the    the client chose its source before translation; the
//	                                             link to the target     target may not have a way back to that one
//	the target itself                            the same               it would drop a packet from its own address
//	a sibling on the target's bridge or          the same               the target would answer it directly, past the
//	segment, here or behind a further router                            translation
//	a sibling on a link of its own (a veth       its own                replies must come through this host
//	pair with a host route, a WireGuard peer)
//
// "This host's, on the link to the target" is what masquerade picks: the
// address of the outgoing link that is closest to the target, which for a
// container is its gateway. Whether the published address is local plays no
// part: it may belong to an upstream gateway. Connections from this host are
// matched by their source being local and by having been translated, never by
// what that source is.
//
// A forward is for a target with a subnet ([Target].Prefix, as the target sees
// it). Where the link decides that no short cut exists, only the target itself
// is masqueraded, however wide the subnet is: a point-to-point link whose own
// addresses cover the target, or a route to the target alone over anything but
// a bridge. Behind a further router a short cut is assumed. Links, addresses
// and routes are followed as long as the Controller is open.
//
// # What else holds
//
//   - A target's forwarded ports are reachable through their forward only:
//     connections that were not translated by us are dropped unless they come
//     from inside the target's subnet, or from this host. So a restriction
//     ([Forward].AllowFrom) cannot be walked around by whoever has a route. Give
//     the subnet that holds the siblings that may talk to a target directly; a
//     drop is final, whatever another table accepts.
//     A target that is an address of this host is not guarded so: what comes in
//     there is not forwarded, and whoever listens on it decides.
//   - The host itself and the target's own subnet may always use a restricted
//     forward. Clients that may not are answered as if it did not exist.
//   - A loopback address (127.0.0.0/8) can be published for this host's own
//     clients. That needs route_localnet on the link to the target; with it a
//     guard drops loopback addresses that come in on that link. IPv6 has no such
//     switch, and its loopback is refused.
//   - With bridge netfilter on (by sysctl or by the bridge's own option), the
//     bridge port that a target hangs on is given hairpin mode, since a bridge
//     does not send a frame back where it came from; it is put back when no
//     longer needed. A target that was never heard of is asked for by ARP or
//     neighbour discovery.
//   - TCP segments of clients elsewhere fit the narrower of the two links (a
//     tunnel, say), also where nobody hears the ICMP errors that would say so:
//     SYNs that pass through announce no more.
//   - Flows of a forward that goes, leads elsewhere or is closed to their source
//     are deleted in the same Apply, and no others. A flow does not say by which
//     interface it came, so narrowing [Forward].AllowVia cuts none.
//   - With [Options].NoPortMapping inside hosts cannot open ports on a router
//     further out.
//   - Our table is put back when another program flushes all rules or tampers
//     with it while the Controller is open; the log says so (Warn).
//   - When flows cannot be deleted after a switch the rules from before come back,
//     and Apply returns a [FlowError]; what is left is deleted by the next Apply.
//   - Forwarding must be on, links and addresses are the caller's, and other
//     tables must let through what has "ct status dnat"; [Controller.Diagnose]
//     finds what does not.
//
// # The table
//
// Everything lives in one table of family inet. Forwards are elements of hash
// sets and maps, so that neither a packet nor a change costs more with more
// forwards: there is no rule for a forward, but one for each way in which sets
// are looked up. DNAT stands in prerouting and output and sets a bit of the
// conntrack label in passing: whatever carries it was translated by us. That,
// and not the target, is what masquerade and the drop go by, so that another
// program's translation to the same target is none of our business. The bit
// follows from the table's name, unless rules of others use it; then it is the
// next one.
//
// Sets, each once for forwards of both protocols and once (proto) with the
// protocol in the key, for each family, and for each size of port blocks (_8):
// forward and limited (where to; the restricted ones apart, for this host
// alone), allowed, allowedhost and via (who else may use the limited ones, and
// where to), target (what is forwarded, after translation). By target: hairpin
// and self (whose replies could take a short cut), inside (what else of its
// subnet is not judged; who is in hairpin is not either). A set exists while it
// is needed.
//
// A range of ports with equal bases is cut into blocks of a power of two, each
// beginning at a multiple of its size, which a rule finds by masking a packet's
// port. Subnets of all lengths share a set, as their middle (192.168.1.128 is
// 192.168.1.0/24), which a rule makes from a packet's address with a mask and a
// bit. There is a rule for each size and length in use: at most 16 for ports, a
// few for the prefix lengths of restrictions, and their products for restricted
// ranges, in theory 16 times 33 (129 for IPv6). A packet that begins a
// connection walks them, however many forwards there are. Intervals of the
// kernel's own would be one element each, but a change to one costs time in
// proportion to all.
//
// Listed by nft, the rules that translate show the label before the lookup; in
// the kernel it is set after, only when the lookup finds something. Loading
// such a listing makes a table that the next Apply corrects.
//
// # Changes
//
// Apply writes the difference to what the kernel holds, in one transaction
// (but for what moves, see below): elements, and the rules for sizes that come into use or go out of it. A new
// table is filled before its rules exist, and what no rule looks at any more
// goes after. Sets of another shape (of another version of this package, or
// tampered with) are replaced without a moment in which they are not there:
// filled under other names, taken over by the rules, deleted. The difference
// is known as long as no other program has made a generation of the rule set,
// else everything is read. What was written is read back. Rules outlive the
// process; a later one takes them over.
//
// Each lookup of a packet sees what is current just then. A forward that goes
// from one set to another (its range was resized, it became restricted, others
// are allowed) would be missed by a packet that is between the two lookups in
// the very instant of the switch. Such a change is made in two transactions, the
// first adds and the second deletes, and between them the packets that were
// among the rules come out. Each new connection is judged by what was or by what
// is to be: an element says both who may come and where to, so that nobody gets
// in whom neither lets in. One who only was allowed may until the second
// transaction, and his flows are deleted after it.
//
// A table belongs to one Controller at a time.
package nat
