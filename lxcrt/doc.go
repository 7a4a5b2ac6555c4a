// Package lxcrt runs system containers through LXC as easily as processes: a
// Spec in, a container out.
//
//	rt, err := lxcrt.New(ctx, lxcrt.Options{Dir: "/var/lib/x", ...})
//	c, err := rt.Create(ctx, lxcrt.Spec{Name: "web", Layers: ..., Init: ...})
//	err = c.Start(ctx)
//	st, err := c.Wait(ctx)
//	err = c.Destroy(ctx)
//
// # Life cycle
//
//	 Create            Start                  Stop, or PID 1 ends
//	───────► stopped ─────────► starting ──► running ──────► stopping ──► stopped
//	            │                              │ ▲                           │
//	            │ Destroy               Freeze ▼ │ Thaw              Destroy │
//	            ▼                             frozen                         ▼
//	          gone                                                         gone
//
// A container outlives the process that started it. Its folder says what it was
// made from (spec.json) and, while it runs, which processes it is (run.json:
// pids with start times, and the boot). Load adopts it, CleanUp takes down what
// nobody wants. LXC's own command socket is not asked: it belongs to one network
// namespace and calls a running container stopped from any other.
//
// # What is where
//
// A start puts the root together as a detached mount: the layers, id-mapped into
// the container's range, below an overlay whose upper stands in the container's
// folder, with the Spec's files written and its mounts attached. A helper
// process (internal/launcher) gets that mount as a descriptor, attaches it in a
// mount namespace of its own, has liblxc start the container there, and stays as
// its monitor. Mounts added later are made detached too and attached in the
// container's namespace. So the host's mount table never shows any of it, and
// everything goes with the last process of the container: squashfs images, loop
// devices (set to clear themselves) and overlays included.
//
// Each container has a point-to-point link: a veth pair, addresses of full
// length, host routes. The runtime's own nftables table sees to it that a link
// speaks with its own address only, that containers reach one another by
// declared edges only, and the host by the gateway's DNS port only; what another
// table has DNATed passes. What comes from or goes to other links is never judged.
// With Spec.Bridge the link is a port of an existing bridge; the same rules then
// stand in a second table, of the bridge family, that judges frames, ARP and ND.
//
// # What holds a container
//
// Its own user namespace, with a range of host ids that nobody else has; a filter
// of system calls (internal/liblxc/confine.c) and a bounding set without what only
// the host's user namespace asks for; the AppArmor profile of the runtime where the
// kernel has AppArmor and apparmor_parser is there; cgroup limits above a part of
// the tree that it sees as its whole tree, read-only and with the limits written in
// it. Left open on purpose is what subcontainers are made with: mount, umount,
// pivot_root, unshare, setns, nested user namespaces. A program of Exec is held by
// all of that as PID 1 is, has PID 1's hard resource limits, and a session keyring
// of its own.
//
// Limits change while it runs (SetLimits). In the v1 cgroup layout swap is bound
// where the kernel accounts for it, I/O where it is read or direct, and there is no
// pressure to read; Features and Stats say so.
//
// Outside of Options.Dir a runtime touches: cgroups below its parent, loop
// devices, its links, its tables (and on bridges that a Spec names its ports), its
// AppArmor profile, the gateway's addresses on the loopback link, liblxc's lock
// folder, and the forwarding sysctls, which stay on.
//
// A Spec with Log has what the container prints kept as lines with time and stream
// by a process of the container's own (internal/liblxc/logger.c), which outlives
// the caller as the container does; package logs reads them.
//
// # Testing
//
// Engine, Instance and Program are the Runtime, Container and Process as code that
// uses them sees them; lxcrttest has a fake of them, and the suite that both pass.
//
// # Limits
//
// The package needs Linux 5.12 or later, root and liblxc 5 or later; without cgo,
// or with the build tag nolxc, it builds and New returns ErrNotSupported.
package lxcrt
