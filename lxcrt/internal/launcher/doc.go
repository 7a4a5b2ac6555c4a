// Package launcher runs the helper process that starts a container, and the one
// that runs a program inside it. Both are the caller's own binary, executed
// again under a marker that the constructor in liblxc recognises before the Go
// runtime starts; so importing the package is enough, and nothing has to be
// installed.
//
// The starter gets the finished root as a descriptor of a detached mount. It has
// a mount namespace of its own, closes what it inherited, and stays as the
// container's monitor. Before PID 1 is executed a hook of the container reports
// its pid over one pipe and waits for a line on another: there the caller
// records the pid on disk and makes the network. If the caller dies before
// that line, the hook reads an end of file, fails, and liblxc takes everything
// down again: a start is either recorded or did not happen.
package launcher
