package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/selfstead/selfstead/server/api"
	"github.com/selfstead/selfstead/server/client"
	"github.com/selfstead/selfstead/server/daemon"
	"github.com/selfstead/selfstead/server/operation"
	"github.com/selfstead/selfstead/server/problem"
	"github.com/selfstead/selfstead/server/state"
)

// upMark is the file in the state folder that says the first run is over.
const upMark = "first-run-done"

func isRefused(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }

// newUpCommand is `stead up`.
func newUpCommand() *cobra.Command {
	f := &serveFlags{}
	var packages []string
	cmd := &cobra.Command{
		Use: "up", Short: "Run the server, with packages installed on its first run", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.serve(cmd, func(ctx context.Context, d *daemon.Daemon, w io.Writer) error {
				c, err := client.New(client.Options{Socket: d.Socket(), UserAgent: "stead/" + version()})
				if err != nil {
					return err
				}
				defer c.Close()
				if err := f.firstRun(ctx, c, w, packages); err != nil {
					return err
				}
				if err := awaitServices(ctx, c); err != nil {
					return err
				}
				return showAddresses(ctx, c, w)
			})
		},
	}
	f.bind(cmd)
	cmd.Flags().StringArrayVar(&packages, "package", nil, "package file to install on the first run; may be given more than once")
	return cmd
}

// firstRun installs the packages once in a folder's life. A run that was cut
// off in between starts over with what is missing.
func (f *serveFlags) firstRun(ctx context.Context, c *client.Client, w io.Writer, packages []string) error {
	mark := filepath.Join(f.dir, upMark)
	if _, err := os.Stat(mark); err == nil {
		return nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, name := range packages {
		if err := installFile(ctx, c, w, name); err != nil {
			return fmt.Errorf("install %s: %w", name, err)
		}
	}
	return os.WriteFile(mark, nil, 0o600)
}

func installFile(ctx context.Context, c *client.Client, w io.Writer, name string) error {
	file, err := os.Open(name)
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "Install %s\n", filepath.Base(name))
	op, err := c.Sideload(ctx, file, info.Size())
	if isInstalled(err) {
		return nil
	}
	if err != nil {
		return err
	}
	op, err = c.FollowOperation(ctx, op.ID, nil)
	switch {
	case err != nil:
		return err
	case op.Status != operation.Succeeded && op.Problem != nil:
		return op.Problem
	case op.Status != operation.Succeeded:
		return errors.New(string(op.Status))
	}
	return nil
}

// serviceWait is how long the addresses wait for services that come up.
const serviceWait = time.Minute

// awaitServices waits until every package that is to run does and its health
// checks have come to something, or until it has failed: before, its ports may
// not be bound yet. A slow one is not waited for longer than serviceWait.
func awaitServices(ctx context.Context, c *client.Client) error {
	ctx, cancel := context.WithTimeout(ctx, serviceWait)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		list, err := c.Packages(ctx)
		if ctx.Err() == context.DeadlineExceeded {
			return nil
		}
		if err != nil {
			return err
		}
		coming := func(p api.Package) bool {
			if p.DesiredState != state.StateRunning || p.State != state.StateRunning {
				return p.DesiredState == state.StateRunning && p.State != state.StateFailed
			}
			for _, h := range p.Health {
				if h.Result == "starting" || h.Result == "waiting" {
					return true
				}
			}
			return false
		}
		if !slices.ContainsFunc(list, coming) {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// showAddresses tells where the packages are reached.
func showAddresses(ctx context.Context, c *client.Client, w io.Writer) error {
	list, err := c.Packages(ctx)
	if err != nil {
		return err
	}
	for _, p := range list {
		hosts, err := c.Hosts(ctx, p.ID)
		if err != nil {
			return err
		}
		for _, h := range hosts {
			for _, b := range h.Bindings {
				for _, a := range b.Addresses {
					if b.Enabled {
						fmt.Fprintf(w, "Service %s  %s\n", plain(p.Title), plain(a.URL))
					}
				}
			}
		}
	}
	fmt.Fprintln(w, "Ready; Ctrl-C stops everything.")
	return nil
}

// isInstalled is the refusal of a package that is there already.
func isInstalled(err error) bool {
	return errors.Is(err, problem.New(0, problem.CodeAlreadyInstalled, ""))
}
