// Package rpc carries the two conversations between the server and a
// service's container: calls to the container's runtime over service.sock
// ([Client]), and the effects that the container calls over host.sock
// ([Server]).
//
// Both sockets speak JSON-RPC objects separated by newlines, without a
// "jsonrpc" member in requests (StartOS container runtime, framing). The
// sockets stand in one folder that belongs to the container's root user, so
// nothing in it is trusted: [Folder] reaches a socket only through the open
// folder and never follows a link, lines have a length limit, and one
// container's floods cost no other container anything.
package rpc
