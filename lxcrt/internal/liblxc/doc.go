// Package liblxc is the only room that meets liblxc and cgo.
//
// It does two things. Check hands a configuration to liblxc through go-lxc, key
// by key, so that a key or value which the installed liblxc does
// not take is refused with its name before anything is started. And it holds
// the launcher: a C constructor that runs when the caller's own binary is
// executed again under the marker of this package, before the Go runtime
// starts, and never returns.
//
// Why C there, and not go-lxc's Start: a container's monitor is a copy of the
// process that starts it. Started daemonised, liblxc throws PID 1's exit status
// away; started in the foreground of a Go program, the runtime's other threads
// take the SIGCHLD that liblxc waits for (the runtime never blocks that
// signal). A single thread without a Go heap has neither trouble, costs a few
// hundred kilobytes instead of several megabytes for the whole life of the
// container, and is up in about the time of an exec.
package liblxc
