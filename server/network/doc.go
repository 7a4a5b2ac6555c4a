// Package network ties the packages' bindings to the server's addresses: it
// gives each binding its outside port, turns the bindings of the document into
// forwards for package nat, says at which addresses each can be reached, and
// answers the containers' DNS queries.
//
// The functions Bind, BindRange, ClearBindings, ExportInterface and so on
// change the document inside one transaction of their caller; Manager.Sync then
// makes the kernel and the computed parts of the document match. Sync runs by
// itself whenever an address or a default route of the server changes.
//
// Outside ports: a binding keeps its port for as long as its package is
// installed. The preferred port is given when it is above 1024, not one of the
// restricted ones (mDNS 5353, LLMNR 5355, PostgreSQL 5432, X11 6010, Tor 9050
// and 9051), not taken by another binding and not in use on the server itself;
// otherwise the first free one from 49152 on (the dynamic ports of RFC 6335).
//
// Until TLS names exist, every enabled binding gets a plain forward, TCP and
// UDP, on each of the server's own addresses: a binding that wants TLS put
// before it is reached without, a service that speaks TLS itself is passed
// through. A binding that no interface tells of is served on loopback and at
// the containers' gateway only.
//
// Between containers everything is shut that [Access] does not open: at the
// gateway's address a forward lets in the declared dependents and whom the
// owner has granted, and the container runtime does the same for connections
// straight to a container. A container that uses an outside address of the
// server is treated as another machine of the LAN is.
package network
