// Package vm runs programs on another kernel: Debian's own, in a virtual
// machine of QEMU, for tests of what the kernel below does not have (cgroup v2,
// AppArmor, WireGuard) or has too much of (what older kernels refuse).
//
// BuildImage makes the machine's root file system from Debian's packages, once.
// Start boots it in about as long as the kernel takes, under KVM where the
// processor has it and by translation elsewhere; what the machine writes lasts
// through reboots and goes with it. PID 1 is a small program of this package,
// or the systemd of the image, or any other. Machine.Start runs commands with
// their streams, several at a time, over a virtio port: no network, no ssh.
// Folders of the host are shared read-only.
//
//	image, err := vm.BuildImage(ctx, vm.ImageOptions{Cache: "/var/cache/vm"})
//	m, err := vm.Start(ctx, vm.Options{Image: image})
//	defer m.Close()
//	st, err := m.Run(ctx, vm.Command{Argv: []string{"uname", "-r"}, Stdout: os.Stdout})
//
// Test builds the test binaries of packages and runs them there. The command in
// cmd/vm does it for a Makefile.
package vm
