package lxcrttest

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/selfstead/selfstead/lxcrt"
)

// caller is a program that makes one system call with zero for every argument
// and ends with the error number as its status.
func caller(t testing.TB, number uint32, compat bool) []byte {
	t.Helper()
	var code []byte
	machine := elf.EM_X86_64
	switch {
	case runtime.GOARCH == "amd64" && compat:
		code = append(binary.LittleEndian.AppendUint32([]byte{0xb8}, number), // mov eax, number
			0x31, 0xdb, 0x31, 0xc9, 0x31, 0xd2, 0x31, 0xf6, // xor ebx..esi
			0xcd, 0x80, // int 0x80
			0x89, 0xc7, 0xf7, 0xdf, // mov edi, eax; neg edi
			0xb8, 60, 0, 0, 0, 0x0f, 0x05) // exit
	case runtime.GOARCH == "amd64":
		code = append(binary.LittleEndian.AppendUint32([]byte{0xb8}, number),
			0x31, 0xff, 0x31, 0xf6, 0x31, 0xd2, 0x45, 0x31, 0xd2, // xor edi, esi, edx, r10d
			0x0f, 0x05,
			0x89, 0xc7, 0xf7, 0xdf,
			0xb8, 60, 0, 0, 0, 0x0f, 0x05)
	case runtime.GOARCH == "arm64" && !compat:
		machine = elf.EM_AARCH64
		for _, w := range []uint32{0xd2800000, 0xd2800001, 0xd2800002, 0xd2800003, // mov x0..x3, 0
			0xd2800008 | number<<5, 0xd4000001, 0xcb0003e0, 0xd2800ba8, 0xd4000001} { // mov x8; svc; neg x0, x0; exit
			code = binary.LittleEndian.AppendUint32(code, w)
		}
	default:
		t.Skip("no hand-made program for this processor")
	}
	const base, headers = 0x10000, 64 + 56
	var b bytes.Buffer
	must(t, binary.Write(&b, binary.LittleEndian, elf.Header64{
		Ident: [16]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
		Type:  uint16(elf.ET_EXEC), Machine: uint16(machine), Version: uint32(elf.EV_CURRENT),
		Entry: base + headers, Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: 1,
	}))
	must(t, binary.Write(&b, binary.LittleEndian, elf.Prog64{Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_R | elf.PF_X),
		Vaddr: base, Paddr: base, Filesz: uint64(headers + len(code)), Memsz: uint64(headers + len(code)), Align: 0x1000}))
	b.Write(code)
	return b.Bytes()
}

// testConfinement: a program that is executed later is bound as PID 1 is, as root
// and as a user, with and without a terminal.
func testConfinement(t *testing.T, f Factory) {
	l, ctx := f(t), Context(t)
	// The caller's own keys and the mercy it may have been given stay its own.
	key, err := unix.AddKey("user", "lxcrttest-secret", []byte("secret"), unix.KEY_SPEC_SESSION_KEYRING)
	if err == nil {
		defer func() { _, _ = unix.KeyctlInt(unix.KEYCTL_UNLINK, key, unix.KEY_SPEC_SESSION_KEYRING, 0, 0) }()
	}
	score, err := os.ReadFile("/proc/self/oom_score_adj")
	must(t, err)
	if os.WriteFile("/proc/self/oom_score_adj", []byte("-500"), 0) != nil { // not even root may everywhere
		must(t, os.WriteFile("/proc/self/oom_score_adj", []byte("100"), 0))
	}
	defer func() { _ = os.WriteFile("/proc/self/oom_score_adj", score, 0) }()

	s := l.Spec("")
	s.Files = []lxcrt.File{{Path: "/bin/bpf", Mode: 0o755, Data: caller(t, unix.SYS_BPF, false)}}
	c := l.Start(s)
	// A later caller may have other limits than the one that started it.
	must(t, unix.Prlimit(c.PID(), unix.RLIMIT_CORE, &unix.Rlimit{Cur: 4096, Max: 8192}, nil))

	status := "grep -E '^(Seccomp|NoNewPrivs|CapBnd|CapInh|CapAmb%s)' /proc/%s/status"
	for _, user := range []string{"", "alice"} {
		caps := "|CapEff|CapPrm"
		if user != "" {
			caps = ""
		}
		for _, tty := range []bool{false, true} {
			read := func(script string) string {
				t.Helper()
				var out bytes.Buffer
				spec := lxcrt.ExecSpec{Argv: []string{"/bin/sh", "-c", script}, Env: []string{"PATH=/bin"}, User: user, TTY: tty}
				if !tty {
					spec.Stdout = &out
				}
				p, err := c.Exec(ctx, spec)
				must(t, err)
				if tty {
					_, _ = out.ReadFrom(p.TTY()) // the end of a terminal reads as an error
				}
				_, err = p.Wait()
				must(t, err)
				return strings.TrimSpace(strings.ReplaceAll(out.String(), "\r", ""))
			}
			one, own := read(fmt.Sprintf(status, caps, "1")), read(fmt.Sprintf(status, caps, "self"))
			equal(t, own, one)
			if !strings.Contains(own, "Seccomp:\t2") || !strings.Contains(own, "Seccomp_filters:\t1") {
				t.Errorf("user %q: no filter: %s", user, own)
			}
			equal(t, read("cat /proc/self/oom_score_adj"), MustSh(t, c, "cat /proc/1/oom_score_adj"))
			equal(t, read("grep -e 'core file' /proc/self/limits | tr -s ' ' | cut -d' ' -f6"), "8192")
			equal(t, read("cut -d: -f2- /proc/self/cgroup"), strings.TrimSpace(MustSh(t, c, "cut -d: -f2- /proc/1/cgroup")))
			equal(t, read("cat /proc/self/attr/current 2>/dev/null || true"), strings.TrimSpace(MustSh(t, c, "cat /proc/1/attr/current 2>/dev/null || true")))
			equal(t, read("grep -c lxcrttest-secret /proc/keys"), "0")
			equal(t, read("umask"), "0022")
			equal(t, read("/bin/bpf; echo $?"), "1")
		}
	}
	// PID 1's namespaces are in no way others.
	for _, ns := range []string{"cgroup", "ipc", "mnt", "net", "pid", "user", "uts"} {
		equal(t, MustSh(t, c, "readlink /proc/self/ns/"+ns), MustSh(t, c, "readlink /proc/1/ns/"+ns))
	}
	if oom := MustSh(t, c, "cat /proc/1/oom_score_adj"); strings.HasPrefix(oom, "-") {
		t.Errorf("PID 1 is spared: %s", oom)
	}
	// Not one capability that only the host's own user namespace asks for is left.
	var bound uint64
	if _, err := fmt.Sscanf(MustSh(t, c, "grep CapBnd /proc/1/status"), "CapBnd:\t%x", &bound); err != nil {
		t.Error(err)
	}
	for name, bit := range map[string]int{"sys_module": 16, "sys_rawio": 17, "sys_time": 25, "mac_admin": 33, "syslog": 34, "perfmon": 38, "bpf": 39} {
		if bound>>bit&1 != 0 {
			t.Errorf("the bounding set has %s", name)
		}
	}
	for name, bit := range map[string]int{"sys_admin": 21, "sys_chroot": 18, "setuid": 7, "setgid": 6, "net_admin": 12} {
		if bound>>bit&1 == 0 {
			t.Errorf("the bounding set lacks %s, which subcontainers need", name)
		}
	}
}

// testCalls tries each system call that the filter refuses, from PID 1's own
// child and from a program executed later.
func testCalls(t *testing.T, f Factory) {
	l := f(t)
	refused := map[string]uint32{
		"acct": unix.SYS_ACCT, "bpf": unix.SYS_BPF, "delete_module": unix.SYS_DELETE_MODULE, "finit_module": unix.SYS_FINIT_MODULE,
		"init_module": unix.SYS_INIT_MODULE, "kexec_load": unix.SYS_KEXEC_LOAD, "kexec_file_load": unix.SYS_KEXEC_FILE_LOAD,
		"open_by_handle_at": unix.SYS_OPEN_BY_HANDLE_AT, "perf_event_open": unix.SYS_PERF_EVENT_OPEN, "quotactl": unix.SYS_QUOTACTL,
		"swapon": unix.SYS_SWAPON, "swapoff": unix.SYS_SWAPOFF, "userfaultfd": unix.SYS_USERFAULTFD,
		"io_uring_setup": unix.SYS_IO_URING_SETUP, "io_uring_enter": unix.SYS_IO_URING_ENTER, "io_uring_register": unix.SYS_IO_URING_REGISTER,
		"quotactl_fd": unix.SYS_QUOTACTL_FD,
	}
	compat := map[string]uint32{}
	if runtime.GOARCH == "amd64" {
		// As a 32-bit program numbers them.
		compat = map[string]uint32{"acct": 51, "bpf": 357, "delete_module": 129, "finit_module": 350, "init_module": 128, "kexec_load": 283,
			"open_by_handle_at": 342, "perf_event_open": 336, "swapon": 87, "swapoff": 115, "userfaultfd": 374, "io_uring_setup": 425, "ioperm": 101}
	}
	s := l.Spec("for p in /calls/*; do $p; echo $? ${p#/calls/}; done >/said; echo >/ready; trap 'exit 0' TERM; while :; do sleep 1000 & wait $!; done")
	var want []string
	add := func(name string, number uint32, old bool, status int) {
		s.Files = append(s.Files, lxcrt.File{Path: "/calls/" + name, Mode: 0o755, Data: caller(t, number, old)})
		want = append(want, fmt.Sprintf("%d %s", status, name))
	}
	for name, n := range refused {
		add(name, n, false, int(unix.EPERM))
	}
	for name, n := range compat {
		add(name+"-32", n, true, int(unix.EPERM))
	}
	if runtime.GOARCH == "amd64" {
		add("getpid-x32", unix.SYS_GETPID|0x40000000, false, int(unix.ENOSYS))
	}
	// What subcontainers are made with comes through to the kernel, which has its
	// own answer to arguments of zero.
	for name, n := range map[string]uint32{"setns": unix.SYS_SETNS, "pivot_root": unix.SYS_PIVOT_ROOT, "mount": unix.SYS_MOUNT} {
		add(name, n, false, map[string]int{"setns": int(unix.EINVAL), "pivot_root": int(unix.EFAULT), "mount": int(unix.EFAULT)}[name])
	}
	add("unshare", unix.SYS_UNSHARE, false, 0)
	c := l.Start(s)
	eventually(t, func() bool { _, st := Sh(t, c, "test -e /ready"); return st.Code == 0 })
	for _, script := range []string{"cat /said", "for p in /calls/*; do $p; echo $? ${p#/calls/}; done"} {
		said := "\n" + MustSh(t, c, script) + "\n"
		for _, w := range want {
			if !strings.Contains(said, "\n"+w+"\n") {
				t.Errorf("want %q: %s", w, said)
				break
			}
		}
	}
	// Unmounting by force could take a file system away that others share.
	equal(t, MustSh(t, c, "mount -t tmpfs t /mnt && ! umount -f /mnt 2>/dev/null && umount /mnt && echo kept"), "kept")
}

// testAppArmor: where the kernel has it, PID 1 and what is executed later run
// under the runtime's profile, which refuses what the user namespace would not,
// and goes with the runtime.
func testAppArmor(t *testing.T, f Factory) {
	l, ctx := f(t), Context(t)
	feature := l.Features()
	enabled, err := os.ReadFile("/sys/module/apparmor/parameters/enabled")
	if !feature.AppArmor {
		if feature.NoAppArmor == "" {
			t.Error("no reason is given")
		}
		if err == nil && strings.TrimSpace(string(enabled)) == "Y" {
			Missing(t, "AppArmor profiles: "+feature.NoAppArmor)
		}
		t.Logf("here: %s", feature.NoAppArmor)
		return
	}
	c := l.Start(l.Spec(""))
	want := "lxcrt-" + l.Options.Table + " (enforce)"
	equal(t, MustSh(t, c, "cat /proc/1/attr/current"), want)
	equal(t, MustSh(t, c, "cat /proc/self/attr/current"), want)
	equal(t, MustSh(t, c, "unshare -Urmpf cat /proc/self/attr/current"), want)
	// Anybody may read this; who is confined may not.
	const firmware = "/sys/firmware"
	if _, err := os.ReadDir(firmware); err == nil {
		if out, st := Sh(t, c, "ls "+firmware+"/*"); st.Code == 0 {
			t.Errorf("%s can be read: %s", firmware, out)
		}
	}
	if out, st := Sh(t, c, "echo unconfined >/proc/self/attr/current || echo changeprofile unconfined >/proc/self/attr/current"); st.Code == 0 {
		t.Errorf("it can leave its profile: %s", out)
	}
	// What subcontainers are made with is let through.
	MustSh(t, c, "unshare -m sh -c 'mount -t tmpfs t /mnt && mkdir /mnt/put && mount --rbind / /media && cd /media && pivot_root . mnt'")
	must(t, c.Stop(ctx, lxcrt.StopOptions{Grace: -1}))
}
