package guest

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
)

// DefaultSocket is where the host listens for effects inside a container.
const DefaultSocket = "/media/startos/rpc/host.sock"

// call is one run of start-container, with everything an applet may touch.
type call struct {
	socket string
	env    []string
	stdin  io.Reader
	stdout io.Writer
	stderr io.Writer
}

// applet runs one subcommand. Its error decides the exit status.
type applet func(c *call, args []string) error

// Main runs start-container with the given argument vector (args[0] is the
// program name) and environment on the process's own standard streams, and
// returns the exit status. It does not return when the applet ends in execve.
func Main(args, env []string) int {
	// Namespaces and parent-death signals belong to one thread, so the whole
	// run stays on one.
	runtime.LockOSThread()
	c := &call{socket: DefaultSocket, env: env, stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr}
	err := c.run(args)
	if err == nil {
		return 0
	}
	var exit *ExitError
	if !errors.As(err, &exit) || exit.Err != nil {
		fmt.Fprintln(c.stderr, err)
	}
	return exitCode(err)
}

func (c *call) run(args []string) error {
	if len(args) > 0 && filepath.Base(args[0]) == "unshare-userns" {
		return unshareUserns(c, args[1:])
	}
	args = args[min(1, len(args)):]
	o := newOptions()
	o.value("socket", "", &c.socket)
	rest, err := o.parse(args)
	if err != nil {
		return err
	}
	if len(rest) == 0 {
		return usagef("no subcommand; see the package documentation")
	}
	if run, ok := local[rest[0]]; ok {
		return run(c, rest[1:])
	}
	return c.effect(rest)
}

// local lists the applets that need no host, by their first word.
var local = map[string]applet{
	"init":         initApplet,
	"run":          runApplet,
	"subcontainer": subcontainerApplet,
	"bind-mount":   bindMountApplet,
	"pipe-wrap":    pipeWrapApplet,
	"get-os-ip":    osIPApplet,
	"git-info":     gitInfoApplet,
}

// subcontainerApplet chooses among the namespace applets and the two effects
// that share their first word.
func subcontainerApplet(c *call, args []string) error {
	if len(args) == 0 {
		return usagef("subcontainer: launch, launch-init, exec, exec-command, create-fs or destroy-fs")
	}
	run, ok := map[string]func(*call, *subcontainerOptions) error{
		"launch":       launch,
		"launch-init":  launchInit,
		"exec":         execJoin,
		"exec-command": execCommand,
	}[args[0]]
	if !ok {
		return c.effect(append([]string{"subcontainer"}, args...))
	}
	o, err := parseSubcontainer(args[1:])
	if err != nil {
		return err
	}
	return run(c, o)
}
