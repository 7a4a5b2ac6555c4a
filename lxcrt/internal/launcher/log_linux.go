package launcher

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"

	"github.com/selfstead/selfstead/lxcrt/internal/liblxc"
)

// LogArgs name the files of a log, and what it is read from.
type LogArgs struct {
	Dir, Name string // of the current file; older ones are Name.1, Name.2, ...
	MaxSize   int64  // bytes of one file
	MaxFiles  int    // the current one included
	Out, Err  *os.File
	Console   *os.File // a terminal's master
	Slave     *os.File // and its other side
}

// Log is a process that writes what comes to files. It outlives this one, and ends
// by itself when nobody can write any more.
type Log struct {
	cmd  *exec.Cmd
	done chan struct{}
}

// StartLog executes a logger, in a session of its own.
func StartLog(o Options, a LogArgs) (*Log, error) {
	cmd := o.command("log", []string{a.Dir, a.Name, strconv.FormatInt(a.MaxSize, 10), strconv.Itoa(a.MaxFiles)})
	cmd.Env = []string{liblxc.EnvKey + "=log"}
	cmd.ExtraFiles = []*os.File{a.Out, a.Err, a.Console, a.Slave}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("execute the logger: %w", err)
	}
	l := &Log{cmd: cmd, done: make(chan struct{})}
	go func() {
		_ = cmd.Wait()
		close(l.done)
	}()
	return l, nil
}

// PID of the logger's outer process.
func (l *Log) PID() int { return l.cmd.Process.Pid }

// Done is closed when the logger has ended and was reaped.
func (l *Log) Done() <-chan struct{} { return l.done }
