package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/selfstead/selfstead/lxcrt"
	"github.com/selfstead/selfstead/lxcrt/logs"
)

// exitStatus is a program's, passed through without a word.
type exitStatus int

func (e exitStatus) Error() string { return "" }
func (e exitStatus) ExitCode() int { return int(e) }

func passThrough(st lxcrt.ExitStatus) error {
	switch {
	case !st.Known:
		return errors.New("how the program ended is not known")
	case st.Signal != 0:
		return exitStatus(128 + int(st.Signal))
	case st.Code != 0:
		return exitStatus(st.Code)
	}
	return nil
}

type runFlags struct {
	name, memory, user, dir, network, cache, ref string
	cpus                                         float64
	pids                                         int64
	mounts, env                                  []string
	remove, detach, input, tty                   bool
}

func (c *containers) runCommand() *cobra.Command {
	f := &runFlags{}
	cmd := &cobra.Command{
		Use: "run IMAGE [COMMAND...]", Short: "Run a command in a new container", Args: cobra.MinimumNArgs(1),
		Long: `Run a command in a new container. IMAGE is "debian" (built from Debian's
packages the first time), a squashfs file, a folder, or an OCI image layout,
whose own command, user, folder and environment hold unless others are given.

The command's output is shown until it ends, and its exit status is this
command's. With -i or -t it gets standard input and a terminal; with -d the
container is left running.`,
		Example: `  stead container run --rm -it debian bash
  stead container run -d --name web --memory 256M -v ./site:/srv:ro debian sleep infinity`,
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
			if len(args) == 0 {
				return []cobra.Completion{cobra.CompletionWithDesc("debian", "built from Debian's packages")}, cobra.ShellCompDirectiveDefault
			}
			return nil, cobra.ShellCompDirectiveDefault
		},
		RunE: func(cmd *cobra.Command, args []string) error { return c.run(cmd, f, args[0], args[1:]) },
	}
	flags := cmd.Flags()
	flags.SetInterspersed(false)
	flags.StringVar(&f.name, "name", "", "name of the container; one is made up otherwise")
	flags.StringVarP(&f.memory, "memory", "m", "", "most memory, as in 512M")
	flags.Float64Var(&f.cpus, "cpus", 0, "most CPUs, as in 1.5")
	flags.Int64Var(&f.pids, "pids", 0, "most tasks")
	flags.StringArrayVarP(&f.mounts, "volume", "v", nil, "HOST:PATH[:ro] shows a folder or file of this machine inside")
	flags.StringArrayVarP(&f.env, "env", "e", nil, "NAME=VALUE for the command; NAME takes it from here")
	flags.StringVarP(&f.user, "user", "u", "", "user[:group] inside")
	flags.StringVarP(&f.dir, "workdir", "w", "", "folder that the command starts in")
	flags.StringVar(&f.network, "network", "on", "on or off")
	flags.BoolVar(&f.remove, "rm", false, "remove the container when the command has ended")
	flags.BoolVarP(&f.detach, "detach", "d", false, "print the name and leave it running")
	flags.BoolVarP(&f.input, "interactive", "i", false, "give the command standard input")
	flags.BoolVarP(&f.tty, "tty", "t", false, "give it a terminal")
	flags.StringVar(&f.cache, "cache", filepath.Join(defaultDir, "base"), "folder in which images are kept")
	flags.StringVar(&f.ref, "ref", "", "which image of an OCI layout with several")
	_ = cmd.RegisterFlagCompletionFunc("network", cobra.FixedCompletions([]cobra.Completion{"on", "off"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// spec makes what does not depend on other containers.
func (f *runFlags) spec(root rootfs, command []string) (lxcrt.Spec, []string, error) {
	s := lxcrt.Spec{Name: f.name, Layers: []lxcrt.Layer{root.layer}, Files: slices.Clone(root.files), Log: &lxcrt.Log{}, Limits: lxcrt.Limits{CPUQuota: f.cpus, PIDs: f.pids}}
	var err error
	if f.memory != "" {
		if s.Limits.Memory, err = parseBytes(f.memory); err != nil {
			return s, nil, err
		}
	}
	for _, v := range f.mounts {
		m, err := parseVolume(v)
		if err != nil {
			return s, nil, err
		}
		s.Mounts = append(s.Mounts, m)
	}
	s.Env = slices.Clone(root.config.Env)
	if !slices.ContainsFunc(s.Env, func(e string) bool { return strings.HasPrefix(e, "PATH=") }) {
		s.Env = append(s.Env, "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
	}
	extra, err := parseEnv(f.env)
	if err != nil {
		return s, nil, err
	}
	s.Env = append(s.Env, extra...)
	argv := append(slices.Clone(root.config.Entrypoint), command...)
	if len(command) == 0 {
		argv = append(argv, root.config.Cmd...)
	}
	if len(argv) == 0 {
		argv = []string{"/bin/sh"}
	}
	if f.user == "" {
		f.user = root.config.User
	}
	if f.dir == "" {
		f.dir = root.config.WorkingDir
	}
	switch f.network {
	case "on":
		if text := resolvers(); len(text) > 0 {
			s.Files = append(s.Files, lxcrt.File{Path: "/etc/resolv.conf", Data: text})
		}
	case "off":
	default:
		return s, nil, fmt.Errorf("--network %q: it is on or off", f.network)
	}
	s.Init = []string{lxcrt.GuestPath, "run"} // waits, while the command is executed on our terminal
	if !f.input && !f.tty {
		if f.user != "" {
			s.Init = append(s.Init, "--user="+f.user)
		}
		if f.dir != "" {
			s.Init = append(s.Init, "--workdir="+f.dir)
		}
		s.Init = append(append(s.Init, "--"), argv...)
	}
	return s, argv, nil
}

// place gives a Spec what no other container has: name, ids and addresses.
func (c *containers) place(ctx context.Context, rt *lxcrt.Runtime, s *lxcrt.Spec, network bool) error {
	names, err := rt.List()
	if err != nil {
		return err
	}
	bases, addresses := map[uint32]bool{}, map[netip.Addr]bool{}
	for _, n := range names {
		ct, err := rt.Load(ctx, n)
		if err != nil {
			return err
		}
		o := ct.Spec()
		bases[o.IDs.Base], addresses[o.Addr4], addresses[o.Addr6] = true, true, true
	}
	if slices.Contains(names, s.Name) {
		return fmt.Errorf("there is a container %s already; choose another --name, or `stead container rm %[1]s` first", s.Name)
	}
	for s.Name == "" {
		if n := "c-" + strings.ToLower(rand.Text()[:6]); !slices.Contains(names, n) {
			s.Name = n
		}
	}
	const first, step = 0x30000000, 65536
	s.IDs = lxcrt.IDRange{Base: first, Count: step}
	for bases[s.IDs.Base] {
		s.IDs.Base += step
	}
	if network {
		v4, v6 := rt.Gateway()
		for s.Addr4 = v4.Next(); addresses[s.Addr4]; {
			s.Addr4 = s.Addr4.Next()
		}
		for s.Addr6 = v6.Next(); addresses[s.Addr6]; {
			s.Addr6 = s.Addr6.Next()
		}
	}
	return nil
}

func (c *containers) run(cmd *cobra.Command, f *runFlags, from string, command []string) (err error) {
	ctx := cmd.Context()
	if f.detach && (f.input || f.tty) {
		return errors.New("-d goes without -i and -t; start it with -d, then use `stead container exec -it`")
	}
	if f.tty {
		if _, err := terminalOf(cmd); err != nil {
			return err
		}
	}
	root, err := findImage(ctx, from, f.cache, f.ref, cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	s, argv, err := f.spec(root, command)
	if err != nil {
		return err
	}
	rt, unlock, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer c.close(rt)
	ct, err := func() (*lxcrt.Container, error) {
		defer unlock()
		if err := c.place(ctx, rt, &s, f.network == "on"); err != nil {
			return nil, err
		}
		ct, err := rt.Create(ctx, s)
		if err != nil {
			return nil, err
		}
		text, err := json.Marshal(note{Image: from, Command: argv, Created: time.Now()})
		if err == nil {
			err = os.WriteFile(filepath.Join(ct.Dir(), noteFile), text, 0o600)
		}
		if err == nil {
			err = ct.Start(ctx)
		}
		if errors.Is(err, lxcrt.ErrInvalid) && slices.ContainsFunc(s.Mounts, func(m lxcrt.Mount) bool { return !m.ReadOnly }) {
			err = fmt.Errorf("%w\n  what helps: `-v HOST:PATH:ro`, or `chmod 700` for a folder above the source", err)
		}
		if err != nil {
			return nil, errors.Join(err, ct.Destroy(context.WithoutCancel(ctx)))
		}
		return ct, nil
	}()
	if err != nil {
		return err
	}
	if f.detach {
		_, err := fmt.Fprintln(cmd.OutOrStdout(), ct.Name())
		return err
	}
	defer func() {
		unlock, lerr := c.lock(context.Background())
		if lerr == nil {
			defer unlock()
		}
		end := context.WithoutCancel(ctx)
		lerr = errors.Join(lerr, ct.Stop(end, lxcrt.StopOptions{Grace: -1}))
		if f.remove {
			lerr = errors.Join(lerr, ct.Destroy(end))
		}
		if lerr != nil {
			err = errors.Join(err, lerr)
		}
	}()
	if f.input || f.tty {
		return execute(cmd, ct, lxcrt.ExecSpec{Argv: argv, Env: s.Env, User: f.user, Dir: f.dir}, f.input, f.tty)
	}
	return attach(cmd, ct, root.config.StopSignal)
}

// attach shows what a container prints until it ends.
func attach(cmd *cobra.Command, ct *lxcrt.Container, stopSignal string) error {
	ctx := cmd.Context()
	log := logs.Open(ct.LogDir(), lxcrt.LogName)
	following, stop := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan error, 1)
	cursor := "0.0"
	show := func(e logs.Entry) error {
		cursor = e.Cursor
		w := cmd.OutOrStdout()
		if e.Stream == logs.Stderr {
			w = cmd.ErrOrStderr()
		}
		_, err := fmt.Fprintln(w, e.Message)
		return err
	}
	go func() { done <- log.Follow(following, cursor, 0, show) }()
	st, err := ct.Wait(ctx)
	if ctx.Err() != nil { // interrupted: it is asked to end as it wants to be asked
		o := lxcrt.StopOptions{Signal: unix.SignalNum(signalName(stopSignal))}
		if err = ct.Stop(context.WithoutCancel(ctx), o); err == nil {
			st, err = ct.Wait(context.WithoutCancel(ctx))
		}
	}
	stop()
	if ferr := <-done; err == nil && ferr != nil && !errors.Is(ferr, context.Canceled) {
		err = ferr
	}
	for err == nil { // the last lines
		page, perr := log.Read(logs.Query{Cursor: cursor, Limit: logs.MaxLimit})
		if perr != nil || len(page.Entries) == 0 {
			err = perr
			break
		}
		for _, e := range page.Entries {
			if err := show(e); err != nil {
				return err
			}
		}
	}
	if err != nil {
		return err
	}
	return passThrough(st)
}

// parseBytes reads a size with a binary unit.
func parseBytes(s string) (int64, error) {
	number, unit := s, int64(1)
	if i := strings.IndexAny(s, "kKmMgGtT"); i > 0 {
		rest := strings.ToLower(s[i+1:])
		if rest == "" || rest == "b" || rest == "ib" {
			number, unit = s[:i], map[byte]int64{'k': 1 << 10, 'm': 1 << 20, 'g': 1 << 30, 't': 1 << 40}[s[i]|0x20]
		}
	}
	f, err := strconv.ParseFloat(number, 64)
	if err != nil || f <= 0 || f*float64(unit) > 1<<62 {
		return 0, fmt.Errorf("%q is no size; 512M is one", s)
	}
	return int64(f * float64(unit)), nil
}

// parseVolume reads HOST:PATH[:ro].
func parseVolume(v string) (lxcrt.Mount, error) {
	host, rest, ok := strings.Cut(v, ":")
	target, mode, hasMode := strings.Cut(rest, ":")
	if !ok || host == "" || !filepath.IsAbs(target) || hasMode && mode != "ro" && mode != "rw" {
		return lxcrt.Mount{}, fmt.Errorf("--volume %q: it is HOST:PATH or HOST:PATH:ro, PATH beginning with /", v)
	}
	host, err := filepath.Abs(host)
	if err != nil {
		return lxcrt.Mount{}, err
	}
	if _, err := os.Stat(host); err != nil {
		return lxcrt.Mount{}, fmt.Errorf("--volume %q: %w", v, err)
	}
	return lxcrt.Mount{Target: filepath.Clean(target), Kind: lxcrt.MountBind, Source: host, IDMap: true, ReadOnly: mode == "ro", NoSuid: true, NoDev: true}, nil
}

func parseEnv(list []string) ([]string, error) {
	var out []string
	for _, e := range list {
		name, _, ok := strings.Cut(e, "=")
		if name == "" {
			return nil, fmt.Errorf("--env %q: it is NAME=VALUE", e)
		}
		if !ok {
			value, there := os.LookupEnv(name)
			if !there {
				continue
			}
			e = name + "=" + value
		}
		out = append(out, e)
	}
	return out, nil
}
