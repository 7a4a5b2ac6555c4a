package pack

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// revision is what git says of a folder.
type revision struct {
	hash string // "-modified" added where the folder differs from it
	date time.Time
}

// gitRevision asks git for the commit of dir. Both calls run in dir: the reference
// packer asks whether the process's own folder is modified.
func gitRevision(ctx context.Context, dir string) (*revision, error) {
	git := func(args ...string) (string, error) {
		cmd := exec.CommandContext(ctx, "git", args...)
		cmd.Dir = dir
		out, err := cmd.Output()
		var exit *exec.ExitError
		if errors.As(err, &exit) && len(exit.Stderr) > 0 {
			err = fmt.Errorf("%w: %s", err, strings.TrimSpace(string(exit.Stderr)))
		}
		return strings.TrimSpace(string(out)), err
	}
	hash, err := git("rev-parse", "HEAD")
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrGit, dir, err)
	}
	r := &revision{hash: hash}
	when, err := git("log", "-1", "--format=%ct", "HEAD")
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrGit, dir, err)
	}
	if sec, err := strconv.ParseInt(when, 10, 64); err == nil {
		r.date = time.Unix(sec, 0)
	}
	// diff-index compares by file times that a fresh checkout has not recorded
	if _, err := git("update-index", "-q", "--refresh"); err != nil && ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if _, err := git("diff-index", "--quiet", "HEAD", "--"); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 1 {
			return nil, fmt.Errorf("%w: %s: %w", ErrGit, dir, err)
		}
		r.hash += "-modified"
	}
	return r, nil
}
