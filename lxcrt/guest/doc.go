// Package guest is the program that runs inside every service container: the
// static binary start-container, in applets chosen by its first argument.
//
//	init                       PID 1: starts the Node runtime, reaps, forwards signals, writes logs
//	run                        PID 1 of any image: one command as a user, or none; reaps, forwards signals
//	subcontainer launch        leader of a subcontainer: namespaces of its own over one image
//	subcontainer launch-init   that leader's inner half, PID 1 of the new PID namespace
//	subcontainer exec          a further process in a launched subcontainer
//	subcontainer exec-command  its inner half: new mount namespace, root, user, then execve
//	bind-mount                 a detached bind mount inside the container
//	pipe-wrap                  a command whose standard output and error are pipes
//	get-os-ip, git-info        facts
//	anything else              an effect, called over the host's socket
//
// Invoked under the name unshare-userns it holds a new user namespace open
// until its standard input ends.
//
// The command line is the one that packages built with the StartOS SDK 2.0
// spawn ("subcontainer launch|exec", "bind-mount"), so options keep their
// spelling. Better than asked for: a subcontainer's first process reaps
// orphans, a workload dies with the wrapper that started it, targets of
// bind-mount below a subcontainer are resolved with that subcontainer as the
// root, and id-mapped bind mounts, which the kernel refuses from inside the
// container's user namespace, are made by the host (method
// selfstead.bind-mount).
//
// Starting up fast matters: the SDK gives a subcontainer about 100 ms to show
// its PID 1 below ROOT/proc. Nothing here does work at package level.
package guest
