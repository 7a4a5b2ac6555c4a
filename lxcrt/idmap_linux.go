package lxcrt

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// idmapNamespace returns a user namespace with the given map, as a descriptor
// that keeps it alive.
func idmapNamespace(extents []extent) (*os.File, error) {
	var file *os.File
	err := heldChild("/proc/self/exe", extents, 0, func(pid int) error {
		var err error
		file, err = os.Open(fmt.Sprintf("/proc/%d/ns/user", pid))
		return err
	})
	return file, err
}

// heldChild calls fn while a child stands stopped in a new user namespace with
// the given map, and in the other new namespaces that flags ask for. The child
// executes a program, but is stopped before its first instruction and killed: any
// will do that is there.
func heldChild(program string, extents []extent, flags uintptr, fn func(pid int) error) error {
	runtime.LockOSThread() // a traced child belongs to the thread that made it
	defer runtime.UnlockOSThread()
	var ids []syscall.SysProcIDMap
	for _, e := range extents {
		ids = append(ids, syscall.SysProcIDMap{ContainerID: int(e.from), HostID: int(e.to), Size: int(e.size)})
	}
	p, err := os.StartProcess(program, []string{"lxcrt-idmap"}, &os.ProcAttr{
		Sys: &syscall.SysProcAttr{
			Cloneflags:  unix.CLONE_NEWUSER | flags,
			UidMappings: ids, GidMappings: ids,
			Ptrace:    true,
			Pdeathsig: syscall.SIGKILL,
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

// idleProgram is the smallest program that the kernel executes: one loaded
// segment, whose instructions nobody reaches (see heldChild). The workshop has no
// other, and no dynamic loader for ours.
func idleProgram() []byte {
	const base, headers = 0x10000, 64 + 56
	machine := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64, "riscv64": elf.EM_RISCV}[runtime.GOARCH]
	var b bytes.Buffer
	write := func(v any) { _ = binary.Write(&b, binary.NativeEndian, v) } // a Buffer takes all
	write(elf.Header64{
		Ident: [16]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
		Type:  uint16(elf.ET_EXEC), Machine: uint16(machine), Version: uint32(elf.EV_CURRENT),
		Entry: base + headers, Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: 1,
	})
	write(elf.Prog64{Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_R | elf.PF_X),
		Vaddr: base, Paddr: base, Filesz: headers + 8, Memsz: headers + 8, Align: 0x1000})
	write([8]byte{})
	return b.Bytes()
}
