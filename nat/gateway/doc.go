// Package gateway knows the ways out of this host and sends traffic by the right
// one: which interfaces lead to a next hop, what changes about them, and policy
// routing over several of them, for IPv4 and IPv6 alike.
//
// # What Apply makes
//
// Each gateway of a Config gets a slot: a routing table of its own and a mark.
// The rules, in the order in which the kernel asks them (the number is added to
// Options.Priority):
//
//	  0  a tunnel's own mark      -> main           encrypted packets never enter a tunnel
//	  1  a tunnel's own mark      -> unreachable    not even when main knows no way
//	  2  mark of a slot           -> its table *    a neighbour is answered on the link it asked on
//	  3  everything               -> main *         what main knows better than by a default route
//	  4  mark of a slot           -> its table      replies leave where the connection came in
//	  5  socket bound to a device -> its table      a bound probe or client leaves by its device
//	 10… from a source            -> its table      the gateway chosen for one service; longest prefix first
//	 11  from a gateway's address -> its table **   an address leaves by the link that owns it
//	270  everything else          -> its table      the default gateway, where one is chosen
//
// * without default routes, nor the halves and eighths (0.0.0.0/1, 2000::/3) that
// some programs use in their place.
//
// ** IPv6 only where no default gateway is chosen: where that gateway refuses, the
// kernel would pick another's address for a new connection and this rule would
// let it out.
//
// So local networks, containers and routes added by hand stay reachable
// whichever gateway is chosen, as main has them at that moment: nothing of it is
// copied, but the networks on a gateway's own link into its own table. Below
// these a table holds the default route of its gateway and, below that, an
// unreachable one: when a chosen gateway is down, gone, or has no address of a
// family, its traffic is refused at once and never leaks to another one.
//
// A table of our own in nftables marks connections with the slot of the gateway
// they came in on, and gives the mark to packets in the reply direction:
// forwarded ones before they are routed, the host's own in a chain of type
// route, the only one after which the kernel looks the route up again. The other
// direction is routed as if there were no mark. Only the bits of Options.Mask
// are read and written; a packet that has one of them set already keeps it.
//
// A reverse path filter would drop what comes in on a gateway that routing does
// not point at: on gateways it is switched off, or made loose where conf/all
// does not let it be off. With a default gateway, tcp_fwmark_accept and IPv6's
// fwmark_reflect are on, so that the host can answer who came in by another
// gateway while the default refuses. The old values are kept as comments in our
// nftables table and put back when they are no longer in the way and by CleanUp,
// also that of another process.
//
// Nothing depends on interface indices, and no other network manager is needed.
// Rules, tables and routes of others are never touched; routes and rules of ours
// have protocol 94. A Controller repairs what others remove of its routes and
// rules (systemd-networkd does, unless ManageForeignRoutingPolicyRules=no); after
// `nft flush ruleset`, Apply again.
//
// # Limits
//
//   - The kernel asks rules one after the other: each source costs a comparison in
//     each route lookup, and each gateway about four, some 15 ns each. One prefix
//     for many services is cheaper than each of their addresses.
//   - A UDP server on several addresses must answer from the address that it was
//     asked on (IP_PKTINFO), or its answer is a connection of its own.
//   - With a default gateway that refuses IPv6 (an IPv4 tunnel, or one that is
//     down), a UDP server cannot answer IPv6 on another gateway, and an IPv6 client
//     bound to another's address gets nowhere, unless they are bound to the device.
//   - A socket bound to a device, or over IPv4 to a gateway's address, has chosen its
//     gateway; so has, over IPv6, everything of the host once a source covers one of
//     its own addresses and the default gateway refuses.
//   - Another default gateway ends the host's own open IPv6 connections, which have
//     the old one's address; those over IPv4 go on by the old one while it is in
//     the Config.
//   - Where conf/all/rp_filter is not 0, traffic forwarded to a source whose own
//     gateway is down, and inbound traffic where nothing routes to the client at
//     all, is still filtered by the kernel.
//   - An unreachable or blackhole default route in main ends each lookup that gets
//     there, before a gateway's table is asked.
package gateway
