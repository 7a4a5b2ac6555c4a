package lxcrt

import (
	"io"
)

// ExecSpec is a program to run inside a running container.
type ExecSpec struct {
	// Argv names the program first; without a slash it is looked for in the PATH
	// of Env.
	Argv []string
	// Env is its whole environment, as K=V; nil gives PATH, HOME and TERM.
	Env []string
	// User is who it runs as: a name or number of the container, "user:group" to
	// name the group too; empty is root.
	User string
	// Dir is where it starts; empty is "/".
	Dir string
	// TTY gives it a terminal of the container: Process.TTY is the other end, and
	// the three streams are not used.
	TTY  bool
	Size WindowSize
	// Stdin, Stdout and Stderr as in os/exec: an *os.File is handed over as it
	// is, anything else is copied, nil is /dev/null.
	Stdin          io.Reader
	Stdout, Stderr io.Writer
}

// WindowSize of a terminal, in characters.
type WindowSize struct{ Rows, Cols uint16 }
