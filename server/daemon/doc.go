// Package daemon puts the rooms of the server together over one state folder:
// it opens the document, the container runtime, the network and the services,
// listens, and takes all of it down again in order.
//
// One folder has one daemon: a lock on DIR/server.lock sees to it, and whoever
// waits for that lock waits for the daemon's end. Names that the kernel shares
// between programs (tables, links, cgroups) carry a part that comes from the
// server's own id, so servers on one machine do not meet.
package daemon
