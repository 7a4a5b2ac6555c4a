package lxcrt

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// process names a process so that a later one with the same number is not taken
// for it.
type process struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"` // clock ticks after boot, /proc/PID/stat field 22
}

// bootID tells one boot from another; pids mean nothing across them.
var bootID = sync.OnceValue(func() string {
	b, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(b))
})

// identify reads the start time of a living pid.
func identify(pid int) (process, error) {
	_, start, err := procStat(pid)
	return process{pid, start}, err
}

func procStat(pid int) (state byte, start uint64, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0, err
	}
	// The name may hold anything, parentheses and blanks included.
	f := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	if len(f) < 20 {
		return 0, 0, fmt.Errorf("/proc/%d/stat: short", pid)
	}
	start, err = strconv.ParseUint(string(f[19]), 10, 64)
	return f[0][0], start, err
}

// alive says whether it is still that process, and not a zombie.
func (p process) alive() bool {
	if p.PID <= 0 {
		return false
	}
	state, start, err := procStat(p.PID)
	return err == nil && start == p.Start && state != 'Z' && state != 'X'
}

// open returns a pidfd of the process, or an error if it has ended.
func (p process) open() (*os.File, error) {
	if p.PID <= 0 {
		return nil, unix.ESRCH
	}
	fd, err := unix.PidfdOpen(p.PID, unix.PIDFD_NONBLOCK)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "pidfd")
	// Looked at after the descriptor pins the process: a recycled pid shows here.
	if !p.alive() {
		f.Close()
		return nil, unix.ESRCH
	}
	return f, nil
}

// awaitExit returns when the process of a pidfd has ended, or with an error when
// the file is closed.
func awaitExit(pidfd *os.File) error {
	conn, err := pidfd.SyscallConn()
	if err != nil {
		return err
	}
	return conn.Read(func(fd uintptr) bool {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(p, 0)
		return err == nil && n > 0
	})
}

// signalTo sends a signal through a pidfd.
func signalTo(pidfd *os.File, sig unix.Signal) error {
	conn, err := pidfd.SyscallConn()
	if err != nil {
		return err
	}
	var serr error
	if err := conn.Control(func(fd uintptr) { serr = unix.PidfdSendSignal(int(fd), sig, nil, 0) }); err != nil {
		return err
	}
	return serr
}

// programOf tells one program from another: the file that a process executes.
func programOf(pid int) (unix.Stat_t, error) {
	var st unix.Stat_t
	err := unix.Stat(fmt.Sprintf("/proc/%d/exe", pid), &st)
	return st, err
}

// sameProgram says whether two processes execute the same file.
func sameProgram(a, b unix.Stat_t) bool { return a.Dev == b.Dev && a.Ino == b.Ino }
