package guest

import (
	"fmt"
	"os/exec"
	"syscall"
)

// unshareUserns holds a new user namespace open for whoever writes its id
// maps: it prints "ready" and waits for the end of its input. The kernel lets
// only a single-threaded process unshare its user namespace, which a Go
// program is not, so util-linux's unshare takes this process over.
func unshareUserns(c *call, args []string) error {
	if _, err := operands(newOptions(), args, 0, 0); err != nil {
		return err
	}
	path, err := exec.LookPath("unshare")
	if err != nil {
		return &ExitError{Code: exitNotFound, Err: fmt.Errorf("guest: unshare-userns: %w", err)}
	}
	err = syscall.Exec(path, []string{"unshare", "--user", "--", "/bin/sh", "-c", "echo ready; while read -r _; do :; done"}, c.env)
	return &ExitError{Code: exitNotExecutable, Err: fmt.Errorf("guest: unshare-userns: %w", err)}
}
