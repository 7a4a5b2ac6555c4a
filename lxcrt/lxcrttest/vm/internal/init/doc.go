// Command init is the first program of a virtual machine and the host's hand in
// it. As PID 1 of the initial file system it loads the modules that the root
// file system needs, mounts it and what else a system has, and then either
// becomes the machine's init (it reaps, and starts itself once more for the
// host) or hands over to the one it was told, having left the host's part as a
// unit for systemd.
package main
