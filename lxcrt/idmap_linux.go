package lxcrt

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"os"
	"runtime"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// idmapNamespace returns a user namespace with the given map, as a descriptor
// that keeps it alive.
func idmapNamespace(extents []extent) (*os.File, error) {
	var file *os.File
	err := heldChild(extents, 0, func(pid int) error {
		var err error
		file, err = os.Open(fmt.Sprintf("/proc/%d/ns/user", pid))
		return err
	})
	return file, err
}

// heldChild calls fn while an idle child stands in a new user namespace with the
// given map, and in the other new namespaces that flags ask for. The calling
// thread needs a /proc, and nothing else of the host.
func heldChild(extents []extent, flags uintptr, fn func(pid int) error) error {
	program, err := idleProgram()
	if err != nil {
		return fmt.Errorf("idle program: %w", err)
	}
	runtime.LockOSThread() // the child's death signal comes with its thread's end
	defer runtime.UnlockOSThread()
	var ids []syscall.SysProcIDMap
	for _, e := range extents {
		ids = append(ids, syscall.SysProcIDMap{ContainerID: int(e.from), HostID: int(e.to), Size: int(e.size)})
	}
	p, err := os.StartProcess(fmt.Sprintf("/proc/self/fd/%d", program), []string{"lxcrt-idmap"}, &os.ProcAttr{
		Env: []string{},
		Sys: &syscall.SysProcAttr{
			Cloneflags:  unix.CLONE_NEWUSER | flags,
			UidMappings: ids, GidMappings: ids,
			Pdeathsig: syscall.SIGKILL,
			Ptrace:    idleCode[runtime.GOARCH] == nil, // then it is stopped before its first instruction
		},
	})
	if err != nil {
		return fmt.Errorf("user namespace: %w", err)
	}
	defer func() {
		_ = p.Kill()
		_, _ = p.Wait()
	}()
	return fn(p.Pid)
}

// idleCode does nothing but wait for a signal, again and again.
var idleCode = map[string][]byte{
	"amd64": {
		0xb8, 0x22, 0, 0, 0, // mov eax, 34 (pause)
		0x0f, 0x05, // syscall
		0xeb, 0xf7, // jmp to the start
	},
	"arm64": {
		0, 0, 0x80, 0xd2, // mov x0, 0
		1, 0, 0x80, 0xd2, // mov x1, 0
		2, 0, 0x80, 0xd2, // mov x2, 0
		3, 0, 0x80, 0xd2, // mov x3, 0
		0x28, 9, 0x80, 0xd2, // mov x8, 73 (ppoll)
		1, 0, 0, 0xd4, // svc 0
		0xfa, 0xff, 0xff, 0x17, // b to the start
	},
}

// idleProgram is a descriptor of the smallest program that the kernel executes:
// one loaded segment, no libraries. Ours would want the dynamic loader, which a
// workshop does not have, and would be larger by thousands of pages.
var idleProgram = sync.OnceValues(func() (int, error) {
	fd, err := unix.MemfdCreate("lxcrt-idle", unix.MFD_CLOEXEC|unix.MFD_EXEC)
	if err == unix.EINVAL { // before Linux 6.3 all are executable
		fd, err = unix.MemfdCreate("lxcrt-idle", unix.MFD_CLOEXEC)
	}
	if err != nil {
		return -1, err
	}
	if _, err := unix.Write(fd, idleELF(idleCode[runtime.GOARCH])); err != nil {
		unix.Close(fd)
		return -1, err
	}
	// Executing wants that nobody has it open for writing.
	ro, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", fd), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	unix.Close(fd)
	return ro, err
})

func idleELF(code []byte) []byte {
	const base, headers = 0x10000, 64 + 56
	machine := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64, "riscv64": elf.EM_RISCV}[runtime.GOARCH]
	size := uint64(headers + max(len(code), 8))
	var b bytes.Buffer
	write := func(v any) { _ = binary.Write(&b, binary.NativeEndian, v) } // a Buffer takes all
	write(elf.Header64{
		Ident: [16]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
		Type:  uint16(elf.ET_EXEC), Machine: uint16(machine), Version: uint32(elf.EV_CURRENT),
		Entry: base + headers, Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: 1,
	})
	write(elf.Prog64{Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_R | elf.PF_X),
		Vaddr: base, Paddr: base, Filesz: size, Memsz: size, Align: 0x1000})
	b.Write(code)
	b.Write(make([]byte, int(size)-b.Len()))
	return b.Bytes()
}
