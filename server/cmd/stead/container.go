package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/selfstead/selfstead/lxcrt"
	"github.com/selfstead/selfstead/server/embedded"
)

// newContainerCommand is `stead container`.
func newContainerCommand() *cobra.Command {
	c := &containers{}
	cmd := &cobra.Command{
		Use: "container", Short: "Run containers on this machine, without a server", Args: cobra.NoArgs,
		Long: `Run system containers on this machine: from Debian's packages, a folder, a
squashfs file or an OCI image layout. They need root, no server, and have
nothing to do with the packages of one. A container goes on when the command
that started it ends.`,
	}
	cmd.PersistentFlags().StringVar(&c.dir, "dir", "/var/lib/selfstead/containers", "state folder; made if missing, for root alone")
	cmd.PersistentFlags().BoolVar(&c.json, "json", false, "print JSON")
	cmd.AddCommand(c.runCommand(), c.execCommand(), c.listCommand(), c.statsCommand(), c.logsCommand(), c.stopCommand(), c.removeCommand())
	return cmd
}

// containers are those below a folder.
type containers struct {
	dir  string
	json bool
}

// note is what this command keeps beside a container, in its folder.
type note struct {
	Image   string    `json:"image"`
	Command []string  `json:"command"`
	Created time.Time `json:"created"`
}

const noteFile = "stead.json"

// open opens the runtime. Commands run side by side, and a folder has one runtime
// at a time, so whoever changes something holds the lock meanwhile; the returned
// function gives it back. Waiting is done without it.
func (c *containers) open(ctx context.Context) (*lxcrt.Runtime, func(), error) {
	if os.Geteuid() != 0 {
		return nil, nil, errors.New("containers need root; run it as root, or with sudo")
	}
	dir, err := filepath.Abs(c.dir)
	if err != nil {
		return nil, nil, err
	}
	c.dir = dir
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, nil, err
	}
	unlock, err := c.lock(ctx)
	if err != nil {
		return nil, nil, err
	}
	options, err := c.options()
	if err != nil {
		unlock()
		return nil, nil, err
	}
	rt, err := lxcrt.New(ctx, options)
	if err != nil {
		unlock()
		if errors.Is(err, lxcrt.ErrNotSupported) {
			err = fmt.Errorf("%w\n  what helps: Debian's packages lxc and squashfs-tools, and a kernel with cgroups mounted", err)
		}
		return nil, nil, err
	}
	return rt, unlock, nil
}

// close closes a runtime, with the lock.
func (c *containers) close(rt *lxcrt.Runtime) {
	if unlock, err := c.lock(context.Background()); err == nil {
		defer unlock()
	}
	_ = rt.Close()
}

func (c *containers) lock(ctx context.Context) (func(), error) {
	f, err := os.OpenFile(filepath.Join(c.dir, ".lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	done := make(chan error, 1)
	go func() {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX)
		for err == unix.EINTR {
			err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
		}
		done <- err
	}()
	select {
	case err := <-done:
		if err != nil {
			f.Close()
			return nil, err
		}
		return func() { f.Close() }, nil
	case <-ctx.Done():
		go func() { <-done; f.Close() }()
		return nil, ctx.Err()
	}
}

// options name everything after the folder, so that two folders never meet.
func (c *containers) options() (lxcrt.Options, error) {
	sum := sha256.Sum256([]byte(c.dir))
	tag := fmt.Sprintf("%x", sum[:4])
	layer, err := embedded.Layer(filepath.Join(c.dir, ".guest"), func(string) bool { return true })
	if err != nil {
		return lxcrt.Options{}, err
	}
	return lxcrt.Options{
		Dir: c.dir, CgroupParent: "stead-containers-" + tag, LinkPrefix: "sc" + tag[:5], Table: "stead-containers-" + tag,
		Guest:   filepath.Join(layer, "usr/bin/start-container"),
		Subnet4: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 128 + sum[4]&63, sum[5] & 0xf0, 0}), 20),
		Subnet6: netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfd, sum[6], sum[7], sum[8], sum[9], sum[10]}), 64),
	}, nil
}

// names are those of the containers, without a runtime.
func (c *containers) names() []string {
	specs, _ := filepath.Glob(filepath.Join(c.dir, "*", "spec.json"))
	var names []string
	for _, s := range specs {
		if n := filepath.Base(filepath.Dir(s)); !strings.HasPrefix(n, ".") {
			names = append(names, n)
		}
	}
	return names
}

// complete offers names; more says whether after the first argument too.
func (c *containers) complete(more bool) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		out := []cobra.Completion{}
		if len(args) > 0 && !more {
			return out, cobra.ShellCompDirectiveDefault
		}
		for _, n := range c.names() {
			if !slices.Contains(args, n) {
				out = append(out, cobra.CompletionWithDesc(n, plain(c.note(n).Image)))
			}
		}
		return out, cobra.ShellCompDirectiveNoFileComp
	}
}

func (c *containers) note(name string) note {
	var n note
	if b, err := os.ReadFile(filepath.Join(c.dir, name, noteFile)); err == nil {
		_ = json.Unmarshal(b, &n)
	}
	return n
}

// explain makes an error of lxcrt say what to do next.
func (c *containers) explain(name string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist) && !slices.Contains(c.names(), name):
		return fmt.Errorf("there is no container %s; `stead container list` shows those there are", name)
	case errors.Is(err, lxcrt.ErrNotRunning):
		return fmt.Errorf("the container %s does not run; `stead container logs %[1]s` shows what it said, `stead container rm %[1]s` removes it", name)
	}
	return err
}

// with calls fn for each named container, with the lock.
func (c *containers) with(ctx context.Context, names []string, fn func(ct *lxcrt.Container) error) error {
	rt, unlock, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	defer rt.Close()
	var errs []error
	for _, n := range names {
		ct, err := rt.Load(ctx, n)
		if err == nil {
			err = fn(ct)
		}
		if err != nil {
			errs = append(errs, c.explain(n, err))
		}
	}
	return errors.Join(errs...)
}

func (c *containers) stopCommand() *cobra.Command {
	var grace time.Duration
	var sig string
	cmd := &cobra.Command{
		Use: "stop NAME...", Short: "Ask containers to end, and kill those that do not", Args: cobra.MinimumNArgs(1), ValidArgsFunction: c.complete(true),
		RunE: func(cmd *cobra.Command, args []string) error {
			o := lxcrt.StopOptions{Grace: grace, Signal: unix.SignalNum(signalName(sig))}
			if o.Signal == 0 {
				return fmt.Errorf("there is no signal %q; names are those of kill -l, such as TERM", sig)
			}
			if grace <= 0 {
				o.Grace = -1
			}
			return c.with(cmd.Context(), args, func(ct *lxcrt.Container) error { return ct.Stop(cmd.Context(), o) })
		},
	}
	cmd.Flags().DurationVarP(&grace, "time", "t", 10*time.Second, "how long they may take; 0 kills at once")
	cmd.Flags().StringVarP(&sig, "signal", "s", "TERM", "signal that asks")
	return cmd
}

func signalName(s string) string { return "SIG" + strings.TrimPrefix(strings.ToUpper(s), "SIG") }

func (c *containers) removeCommand() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use: "rm NAME...", Short: "Remove containers with everything in them", Args: cobra.MinimumNArgs(1), ValidArgsFunction: c.complete(true),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.with(cmd.Context(), args, func(ct *lxcrt.Container) error {
				if s := ct.State(); s != lxcrt.Stopped && !force {
					return fmt.Errorf("the container %s is %s; stop it first, or say --force", ct.Name(), s)
				}
				if err := ct.Stop(cmd.Context(), lxcrt.StopOptions{Grace: -1}); err != nil {
					return err
				}
				return ct.Destroy(cmd.Context())
			})
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "also if they run")
	return cmd
}
