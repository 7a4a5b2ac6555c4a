package vm

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"
	"time"

	"github.com/selfstead/selfstead/lxcrt/lxcrttest/vm/internal/wire"
)

// Command is a program to run in the machine, as root.
type Command struct {
	Argv []string
	Env  []string // beside PATH, HOME and LANG
	Dir  string   // empty means /
	// Stdin may be nil. Stdout and Stderr get what the program writes, from one
	// goroutine for the whole machine: a slow one holds up all commands.
	Stdin          io.Reader
	Stdout, Stderr io.Writer
}

// Status says how a command ended. What it left running in the background goes
// on without its streams.
type Status struct {
	Code   int            // 128 and the number for a signal
	Signal syscall.Signal // that ended it; 0 when none did
}

func (s Status) String() string {
	if s.Signal != 0 {
		return "signal: " + s.Signal.String()
	}
	return fmt.Sprintf("exit status %d", s.Code)
}

// Process is a command under way.
type Process struct {
	m              *Machine
	id             uint32
	stdout, stderr io.Writer
	done           chan struct{}
	status         Status
	err            error
}

// Start starts a command. An error to start it comes from Wait.
func (m *Machine) Start(c Command) (*Process, error) {
	return m.begin(wire.Run, wire.Command{Argv: c.Argv, Env: c.Env, Dir: c.Dir}, c.Stdin, c.Stdout, c.Stderr)
}

func (m *Machine) begin(kind wire.Kind, what any, stdin io.Reader, stdout, stderr io.Writer) (*Process, error) {
	p := &Process{m: m, stdout: stdout, stderr: stderr, done: make(chan struct{})}
	m.mu.Lock()
	m.last++
	p.id = m.last
	m.commands[p.id] = p
	m.mu.Unlock()
	err := m.w.JSON(kind, p.id, what)
	if err != nil {
		m.mu.Lock()
		delete(m.commands, p.id)
		m.mu.Unlock()
		return nil, fmt.Errorf("%w: %w", ErrGone, err)
	}
	select {
	case <-m.reader: // after its last look at the commands
		p.m.drop()
	default:
	}
	go func() {
		if stdin != nil {
			_, _ = io.Copy(m.w.Stream(wire.Input, p.id), stdin)
		}
		_ = m.w.Write(wire.Input, p.id, nil)
	}()
	return p, nil
}

// take is told what the machine says of the command.
func (p *Process) take(f wire.Frame) {
	switch {
	case f.Kind == wire.Output && p.stdout != nil:
		_, _ = p.stdout.Write(f.Payload)
	case f.Kind == wire.Errors && p.stderr != nil:
		_, _ = p.stderr.Write(f.Payload)
	case f.Kind == wire.Exit:
		var st wire.Status
		err := json.Unmarshal(f.Payload, &st)
		if st.Err != "" {
			err = errors.New("vm: in the machine: " + st.Err)
		}
		p.end(Status{Code: st.Code, Signal: syscall.Signal(st.Signal)}, err)
	}
}

func (p *Process) end(st Status, err error) {
	p.status, p.err = st, err
	close(p.done)
}

// Signal sends a signal to the command and what it started.
func (p *Process) Signal(s syscall.Signal) error {
	return p.m.w.Write(wire.Signal, p.id, []byte{byte(s)})
}

// Wait waits for the command. When ctx ends first it kills the command.
func (p *Process) Wait(ctx context.Context) (Status, error) {
	select {
	case <-p.done:
		return p.status, p.err
	case <-ctx.Done():
	}
	_ = p.Signal(syscall.SIGKILL)
	grace := time.NewTimer(10 * time.Second)
	defer grace.Stop()
	select {
	case <-p.done:
	case <-grace.C: // it hangs in the kernel; the machine can still be closed
	}
	return Status{Code: 128 + int(syscall.SIGKILL), Signal: syscall.SIGKILL}, ctx.Err()
}

// Run starts a command and waits for it. A status other than 0 is no error.
func (m *Machine) Run(ctx context.Context, c Command) (Status, error) {
	p, err := m.Start(c)
	if err != nil {
		return Status{}, err
	}
	return p.Wait(ctx)
}

// Sh runs a script and returns what it wrote to both streams; a status other
// than 0 is an error.
func (m *Machine) Sh(ctx context.Context, script string) (string, error) {
	var out bytes.Buffer
	st, err := m.Run(ctx, Command{Argv: []string{"/bin/sh", "-c", script}, Stdout: &out, Stderr: &out})
	if err == nil && st.Code != 0 {
		err = fmt.Errorf("vm: %q: %s: %s", script, st, strings.TrimSpace(out.String()))
	}
	return strings.TrimSuffix(out.String(), "\n"), err
}

// Put writes a file of the machine, and the folders above it.
func (m *Machine) Put(ctx context.Context, path string, mode uint32, content io.Reader) error {
	p, err := m.begin(wire.Put, wire.File{Path: path, Mode: mode}, content, nil, nil)
	if err != nil {
		return err
	}
	_, err = p.Wait(ctx)
	return err
}
