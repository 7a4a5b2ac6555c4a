package guest

import (
	"fmt"
	"os"
	"os/signal"
	"time"

	"golang.org/x/sys/unix"
)

// terminal is a new pty whose slave a child gets, relayed to our own streams.
type terminal struct {
	master *os.File
	slave  *os.File
	saved  *unix.Termios // our own terminal's settings before raw mode
	output chan struct{} // closed when the child's output has ended
	resize chan os.Signal
}

func isTerminal(fd int) bool {
	_, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	return err == nil
}

// openTerminal makes a pty when the options force one or our own standard
// input and output are a terminal; otherwise it returns nil.
func openTerminal(o *subcontainerOptions) (*terminal, error) {
	if !o.ForceTTY && !(isTerminal(0) && isTerminal(1)) {
		return nil, nil
	}
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("guest: new terminal: %w", err)
	}
	t := &terminal{master: master}
	fd := int(master.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.close()
		return nil, fmt.Errorf("guest: unlock terminal: %w", err)
	}
	// By descriptor: the path of the slave may mean another devpts.
	slave, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		t.close()
		return nil, fmt.Errorf("guest: open terminal: %w", errno)
	}
	t.slave = os.NewFile(slave, "pty")
	size := o.Size
	if size == nil {
		if ws, err := unix.IoctlGetWinsize(0, unix.TIOCGWINSZ); err == nil {
			size = &termSize{Rows: ws.Row, Cols: ws.Col, X: ws.Xpixel, Y: ws.Ypixel}
		}
	}
	if size != nil {
		err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: size.Rows, Col: size.Cols, Xpixel: size.X, Ypixel: size.Y})
		if err != nil {
			t.close()
			return nil, fmt.Errorf("guest: terminal size: %w", err)
		}
	}
	return t, nil
}

// childFiles are the child's standard streams. Its standard error stays a
// stream of its own unless ours is a terminal too, or is to be treated as one.
func (t *terminal) childFiles(o *subcontainerOptions) []uintptr {
	slave := t.slave.Fd()
	if o.ForceStderrTTY || isTerminal(2) {
		return []uintptr{slave, slave, slave}
	}
	return []uintptr{slave, slave, 2}
}

// relay starts copying in both directions, following our terminal's size.
func (t *terminal) relay() {
	t.slave.Close()
	t.slave = nil
	if saved, err := unix.IoctlGetTermios(0, unix.TCGETS); err == nil {
		t.saved = saved
		raw := *saved
		makeRaw(&raw)
		_ = unix.IoctlSetTermios(0, unix.TCSETS, &raw)
		t.resize = make(chan os.Signal, 1)
		signal.Notify(t.resize, unix.SIGWINCH)
		go func() {
			for range t.resize {
				if ws, err := unix.IoctlGetWinsize(0, unix.TIOCGWINSZ); err == nil {
					_ = unix.IoctlSetWinsize(int(t.master.Fd()), unix.TIOCSWINSZ, ws)
				}
			}
		}()
	}
	go func() {
		pump(t.master, os.Stdin)
		// The end of input reaches a terminal's reader as the VEOF character.
		_, _ = t.master.Write([]byte{4})
	}()
	t.output = make(chan struct{})
	go func() {
		defer close(t.output)
		pump(os.Stdout, t.master)
	}()
}

// drain waits for the rest of the output; the kernel ends it with EIO once the
// last process has closed the slave. One left in the background may never do
// so, hence the limit.
func (t *terminal) drain() {
	select {
	case <-t.output:
	case <-time.After(time.Second):
	}
}

func (t *terminal) close() {
	if t.saved != nil {
		_ = unix.IoctlSetTermios(0, unix.TCSETS, t.saved)
	}
	if t.slave != nil {
		t.slave.Close()
	}
	t.master.Close()
}

// pump copies until either side ends, with one buffer.
func pump(to, from *os.File) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			if _, e := to.Write(buf[:n]); e != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// makeRaw is cfmakeraw(3).
func makeRaw(t *unix.Termios) {
	t.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	t.Oflag &^= unix.OPOST
	t.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	t.Cflag &^= unix.CSIZE | unix.PARENB
	t.Cflag |= unix.CS8
	t.Cc[unix.VMIN], t.Cc[unix.VTIME] = 1, 0
}
