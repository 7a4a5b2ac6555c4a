package guest

import (
	"fmt"
	"os"
	"syscall"
)

// pipeWrapApplet runs a command whose standard output and error are pipes,
// relayed to our own: what a program reopens as /dev/stderr has to be a pipe
// or file, not a socket.
func pipeWrapApplet(c *call, args []string) error {
	rest, err := newOptions().parse(args)
	if err != nil {
		return err
	}
	if len(rest) == 0 {
		return usagef("pipe-wrap: the command is missing")
	}
	signals := catchForwarded()
	env := newEnviron(c.env)
	env.set("STARTOS_ENVIRONMENT=")
	out, err := newRelay(os.Stdout)
	if err != nil {
		return err
	}
	errs, err := newRelay(os.Stderr)
	if err != nil {
		return err
	}
	pid, err := forkExec(rest, &syscall.ProcAttr{
		Files: []uintptr{0, out.write.Fd(), errs.write.Fd()}, Sys: &syscall.SysProcAttr{},
	}, env)
	if err != nil {
		return err
	}
	out.start()
	errs.start()
	ws, err := waitForwarding(pid, signals, nil)
	if err != nil {
		return fmt.Errorf("guest: pipe-wrap: %w", err)
	}
	out.finish()
	errs.finish()
	return statusError(ws, false)
}

// relay carries a child's stream to one of ours.
type relay struct {
	read, write, to *os.File
	done            chan struct{}
}

func newRelay(to *os.File) (*relay, error) {
	r, w, err := openPipe()
	if err != nil {
		return nil, err
	}
	return &relay{read: r, write: w, to: to, done: make(chan struct{})}, nil
}

// start closes our copy of the writing end and begins to copy.
func (r *relay) start() {
	r.write.Close()
	go func() {
		defer close(r.done)
		pump(r.to, r.read)
	}()
}

// finish waits for what the ended child wrote; a process left in the
// background may hold the pipe open, so it does not wait for its end.
func (r *relay) finish() {
	drained(r.read, r.done)
}
