// Package nattest helps to test what uses nat.
//
// Recorder stands in for a nat.Controller where there is no root and no kernel
// to talk to: it judges configurations as the real one does and keeps them.
//
// Lab builds network namespaces, joins them with links, and runs servers and
// clients in them. Its servers answer with the source address that they saw,
// which is what a test of NAT wants to know. It is made of namespaces, the ip
// program and plain sockets, and never uses nat, so that it can judge nat.
package nattest
