package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/selfstead/selfstead/lxcrt/lxcrttest/vm/internal/wire"
)

const searchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// server carries out what the host says.
type server struct {
	w *wire.Writer

	mu   sync.Mutex // guards what follows
	runs map[uint32]*run
}

// run is a command, or a file being written.
type run struct {
	input *queue
	pid   int // of its process group; 0 for a file, or before it runs
}

func serve() error {
	port, err := openPort()
	if err != nil {
		return err
	}
	s := &server{w: wire.NewWriter(port), runs: map[uint32]*run{}}
	if err := s.greet(); err != nil {
		return err
	}
	for r := wire.NewReader(port); ; {
		f, err := r.Read()
		if err != nil {
			return err
		}
		s.take(f)
	}
}

// openPort opens the virtio port by its name, without wanting udev.
func openPort() (*os.File, error) {
	names, err := filepath.Glob("/sys/class/virtio-ports/*/name")
	if err != nil {
		return nil, err
	}
	for _, n := range names {
		b, err := os.ReadFile(n)
		if err == nil && strings.TrimSpace(string(b)) == wire.Port {
			return os.OpenFile("/dev/"+filepath.Base(filepath.Dir(n)), os.O_RDWR, 0)
		}
	}
	return nil, errors.New("no virtio port " + wire.Port)
}

func (s *server) greet() error {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return err
	}
	if err := s.w.Pad(); err != nil {
		return err
	}
	return s.w.JSON(wire.Hello, 0, wire.Greeting{Kernel: unix.ByteSliceToString(u.Release[:])})
}

func (s *server) take(f wire.Frame) {
	s.mu.Lock()
	r := s.runs[f.ID]
	s.mu.Unlock()
	switch f.Kind {
	case wire.Run, wire.Put:
		r := &run{input: newQueue()}
		s.mu.Lock()
		s.runs[f.ID] = r
		s.mu.Unlock()
		go s.carryOut(f, r)
	case wire.Input:
		if r != nil {
			r.input.add(f.Payload)
		}
	case wire.Signal:
		s.mu.Lock()
		if r != nil && r.pid != 0 && len(f.Payload) == 1 {
			_ = unix.Kill(-r.pid, syscall.Signal(f.Payload[0]))
		}
		s.mu.Unlock()
	case wire.Power:
		go power(string(f.Payload))
	}
}

func (s *server) carryOut(f wire.Frame, r *run) {
	var st wire.Status
	if f.Kind == wire.Put {
		st = put(f.Payload, r.input)
	} else {
		st = s.run(f, r)
	}
	s.mu.Lock()
	delete(s.runs, f.ID)
	s.mu.Unlock()
	_ = s.w.JSON(wire.Exit, f.ID, st)
}

func put(spec []byte, content io.Reader) wire.Status {
	var f wire.File
	err := json.Unmarshal(spec, &f)
	if err == nil {
		err = os.MkdirAll(filepath.Dir(f.Path), 0o755)
	}
	if err != nil {
		return wire.Status{Err: err.Error()}
	}
	out, err := os.OpenFile(f.Path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, os.FileMode(f.Mode))
	if err != nil {
		return wire.Status{Err: err.Error()}
	}
	_, err = io.Copy(out, content)
	if err = errors.Join(err, out.Chmod(os.FileMode(f.Mode)), out.Close()); err != nil {
		return wire.Status{Err: err.Error()}
	}
	return wire.Status{}
}

func (s *server) run(f wire.Frame, r *run) wire.Status {
	var c wire.Command
	if err := json.Unmarshal(f.Payload, &c); err != nil || len(c.Argv) == 0 {
		return wire.Status{Code: 127, Err: fmt.Sprintf("command %q: %v", f.Payload, err)}
	}
	cmd := exec.Command(c.Argv[0], c.Argv[1:]...)
	cmd.Env = append([]string{"PATH=" + searchPath, "HOME=/root", "LANG=C.UTF-8"}, c.Env...)
	cmd.Dir = c.Dir
	if cmd.Dir == "" {
		cmd.Dir = "/"
	}
	cmd.Stdout, cmd.Stderr = s.w.Stream(wire.Output, f.ID), s.w.Stream(wire.Errors, f.ID)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = time.Second // for what it left running with its streams
	in, err := cmd.StdinPipe()
	if err != nil {
		return wire.Status{Code: 127, Err: err.Error()}
	}
	if err := cmd.Start(); err != nil {
		return wire.Status{Code: 127, Err: err.Error()}
	}
	s.mu.Lock()
	r.pid = cmd.Process.Pid
	s.mu.Unlock()
	go func() {
		_, _ = io.Copy(in, r.input)
		in.Close()
	}()
	err = cmd.Wait()
	s.mu.Lock()
	r.pid = 0
	s.mu.Unlock()
	r.input.add(nil)
	if ee := (*exec.ExitError)(nil); err != nil && !errors.As(err, &ee) && !errors.Is(err, exec.ErrWaitDelay) {
		return wire.Status{Code: 127, Err: err.Error()}
	}
	if ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return wire.Status{Code: 128 + int(ws.Signal()), Signal: int(ws.Signal())}
	}
	return wire.Status{Code: cmd.ProcessState.ExitCode()}
}

// power ends the machine the way that its init does it.
func power(what string) {
	how := unix.LINUX_REBOOT_CMD_POWER_OFF
	if what == "reboot" {
		how = unix.LINUX_REBOOT_CMD_RESTART
	}
	if _, err := os.Stat("/run/systemd/private"); err == nil {
		out, err := exec.Command("systemctl", what).CombinedOutput()
		if err == nil {
			return
		}
		fmt.Fprintf(os.Stderr, "vm agent: systemctl %s: %v: %s\n", what, err, out)
	}
	powerOff(how)
}

// queue holds input until a command takes it, so that one that does not read
// holds up no other.
type queue struct {
	mu    sync.Mutex
	cond  *sync.Cond
	parts [][]byte
	ended bool
}

func newQueue() *queue {
	q := &queue{}
	q.cond = sync.NewCond(&q.mu)
	return q
}

func (q *queue) add(b []byte) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(b) == 0 {
		q.ended = true
	} else if !q.ended {
		q.parts = append(q.parts, b)
	}
	q.cond.Broadcast()
}

func (q *queue) Read(p []byte) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.parts) == 0 {
		if q.ended {
			return 0, io.EOF
		}
		q.cond.Wait()
	}
	n := copy(p, q.parts[0])
	if q.parts[0] = q.parts[0][n:]; len(q.parts[0]) == 0 {
		q.parts = q.parts[1:]
	}
	return n, nil
}
