// Command start-container is the program inside a service container: PID 1,
// the subcontainer wrappers and a client for effects. See package guest.

// Starting up must not wait for the files of the cgroup tree.
//
//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0
package main

import (
	"os"

	"github.com/selfstead/selfstead/lxcrt/guest"
)

func main() { os.Exit(guest.Main(os.Args, os.Environ())) }
