package main

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/selfstead/selfstead/s9pk"
	"github.com/selfstead/selfstead/s9pk/pack"
	"github.com/selfstead/selfstead/server/api"
	"github.com/selfstead/selfstead/server/client"
	"github.com/selfstead/selfstead/server/journal"
	"github.com/selfstead/selfstead/server/operation"
)

// newDevCommand is `stead dev`.
func newDevCommand() *cobra.Command {
	t := &target{}
	d := &dev{target: t}
	cmd := &cobra.Command{
		Use:   "dev [PROJECT]",
		Short: "Work on a package: build, install, follow its log; again on each change",
		Long: `Work on a package: build it, install it, and follow its log; when a file of the
project changes, build it again and update what is installed, with its data. The
project is one with service.yaml, or one of the SDK, whose package.json's script
"build" is run first (after npm install, where there are no node_modules).

Packages are signed with a key of their own, dev-key.pem beside your signing key,
made when it is missing. A fault is shown, and the next change tried. Ctrl-C ends
it; the package stays installed.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			d.dir = "."
			if len(args) > 0 {
				d.dir = args[0]
			}
			return d.run(cmd)
		},
	}
	t.bind(cmd)
	f := cmd.Flags()
	f.StringVar(&d.keyFile, "key", "", "`FILE` with the signing key (default dev-key.pem in selfstead's configuration folder)")
	f.StringVar(&d.arch, "arch", "", "pack for this `ARCH` (default: the server's)")
	f.StringVar(&d.cache, "cache", "", "`DIR` that keeps built images")
	f.StringVar(&d.tool, "tool", "", "docker or podman (default: the first that works)")
	f.BoolVar(&d.once, "once", false, "end when the package runs, without following it")
	return cmd
}

const (
	quiet     = 300 * time.Millisecond // no file must change for this long before a build begins
	unchecked = 3 * time.Second        // a service that reports no health for this long has no checks
)

// dev is one session of work on a project.
type dev struct {
	*target
	dir, keyFile, arch, cache, tool string
	once                            bool

	c    *client.Client
	key  ed25519.PrivateKey
	work string // scratch folder

	mu  sync.Mutex // guards what is printed: messages and the log
	out io.Writer
	err io.Writer
}

// say prints a message of ours.
func (d *dev) say(format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	fmt.Fprintf(d.err, "» "+format+"\n", args...)
}

func (d *dev) run(cmd *cobra.Command) (err error) {
	ctx := cmd.Context()
	d.out, d.err = cmd.OutOrStdout(), cmd.ErrOrStderr()
	if fi, err := os.Stat(d.dir); err != nil {
		return err
	} else if !fi.IsDir() {
		return fmt.Errorf("%s is not a folder", d.dir)
	}
	if d.c, err = d.client(); err != nil {
		return err
	}
	defer d.c.Close()
	system, err := d.c.System(ctx)
	if err != nil {
		return err
	}
	if d.arch == "" {
		d.arch = system.Architecture
	}
	if d.key, err = d.devKey(); err != nil {
		return err
	}
	if d.work, err = os.MkdirTemp("", "stead-dev-"); err != nil {
		return err
	}
	defer os.RemoveAll(d.work)
	changes, err := watch(ctx, d.dir, quiet)
	if err != nil {
		return err
	}
	installed, stop := "", func() {}
	defer func() { stop() }()
	for {
		id, err := d.round(ctx)
		if err == nil {
			if installed != id {
				stop()
				stop = d.follow(ctx, id)
			}
			installed = id
			err = d.settle(ctx, id, changes)
		}
		if ctx.Err() != nil {
			break
		}
		if err != nil {
			d.say("%s", explain(err))
			if d.once {
				return errors.New("the package does not run")
			}
		}
		if d.once {
			return nil
		}
		if errors.Is(err, errChanged) {
			continue
		}
		d.say("waiting for changes in %s", d.dir)
		select {
		case <-ctx.Done():
		case name, ok := <-changes:
			if !ok && ctx.Err() == nil {
				return errors.New("the project's folder is gone")
			}
			if ok {
				d.say("%s changed", name)
			}
		}
		if ctx.Err() != nil {
			break
		}
	}
	if installed != "" {
		d.say("done; %s stays installed (stead packages uninstall %[1]s removes it)", installed)
	}
	return nil
}

// devKey is the key that packages in the making are signed with.
func (d *dev) devKey() (ed25519.PrivateKey, error) {
	if d.keyFile != "" {
		return readKey(d.keyFile)
	}
	path, err := defaultKeyPath()
	if err != nil {
		return nil, err
	}
	path = filepath.Join(filepath.Dir(path), "dev-key.pem")
	key, err := readKey(path)
	if errors.Is(err, fs.ErrNotExist) {
		d.say("made a key for packages in the making: %s", path)
		return createKey(path)
	}
	return key, err
}

// round builds, packs and installs once.
func (d *dev) round(ctx context.Context) (id string, err error) {
	start := time.Now()
	if err := d.build(ctx); err != nil {
		return "", err
	}
	bar := newProgress(d.err)
	file, err := pack.Pack(ctx, pack.Options{
		Dir: d.dir, Output: filepath.Join(d.work, "package.s9pk"), Key: d.key, Arch: []string{d.arch}, CacheDir: d.cache, Tool: d.tool, Level: 1,
		Progress: func(p pack.Progress) { bar.set(strings.TrimSuffix(p.Step+": "+p.Phase, ": "), p.Done, p.Total) },
	})
	bar.done()
	if err != nil {
		return "", err
	}
	m, size, err := manifestOf(ctx, file)
	if err != nil {
		return "", err
	}
	d.say("packed %s %s, %.1f MB, in %.1f s", m.ID, m.Version.String(), float64(size)/1e6, time.Since(start).Seconds())
	start = time.Now()
	op, err := d.install(ctx, m.ID, file, size)
	if err != nil {
		return m.ID, err
	}
	end, err := d.c.FollowOperation(ctx, op.ID, func(operation.Operation) {})
	if err != nil {
		return m.ID, err
	}
	if end.Status != operation.Succeeded {
		if end.Problem != nil {
			return m.ID, end.Problem
		}
		return m.ID, fmt.Errorf("%s %s", end.Kind, end.Status)
	}
	d.say("%s of %s %s done in %.1f s", end.Kind, m.ID, m.Version.String(), time.Since(start).Seconds())
	return m.ID, nil
}

func manifestOf(ctx context.Context, file string) (*s9pk.Manifest, int64, error) {
	a, err := s9pk.OpenFile(file, s9pk.Options{})
	if err != nil {
		return nil, 0, err
	}
	defer a.Close()
	m, err := a.Manifest(ctx)
	return m, a.Size(), err
}

// build makes the bundle of a project of the SDK.
func (d *dev) build(ctx context.Context) error {
	if pack.Described(d.dir) {
		return nil
	}
	text, err := os.ReadFile(filepath.Join(d.dir, "package.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var project struct{ Scripts map[string]string }
	if err := json.Unmarshal(text, &project); err != nil {
		return fmt.Errorf("package.json: %w", err)
	}
	if project.Scripts["build"] == "" {
		return nil
	}
	if _, err := os.Stat(filepath.Join(d.dir, "node_modules")); errors.Is(err, fs.ErrNotExist) {
		if err := d.npm(ctx, "install", "--no-audit", "--no-fund", "--loglevel=error"); err != nil {
			return err
		}
	}
	return d.npm(ctx, "run", "-s", "build")
}

func (d *dev) npm(ctx context.Context, args ...string) error {
	d.say("npm %s", strings.Join(args, " "))
	cmd := exec.CommandContext(ctx, "npm", args...)
	cmd.Dir = d.dir
	cmd.Stdout, cmd.Stderr = d.err, d.err
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("npm %s: %w", strings.Join(args, " "), err)
	}
	return nil
}

// install sends the package: over an installed one too, of whatever version.
func (d *dev) install(ctx context.Context, id, file string, size int64) (operation.Operation, error) {
	f, err := os.Open(file)
	if err != nil {
		return operation.Operation{}, err
	}
	defer f.Close()
	bar := newProgress(d.err)
	defer bar.done()
	return d.c.SideloadWith(ctx, &counted{r: f, tell: func(n int64) { bar.set("upload "+id, n, size) }}, size, api.SideloadOptions{Reinstall: true})
}

// follow prints the package's log until stop is called.
func (d *dev) follow(ctx context.Context, id string) (stop func()) {
	if d.once {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		cursor := ""
		for ctx.Err() == nil {
			err := d.c.FollowLog(ctx, id, cursor, 10, func(e journal.Entry) error {
				cursor = e.Cursor
				d.mu.Lock()
				defer d.mu.Unlock()
				_, err := fmt.Fprintf(d.out, "%s %s\n", e.Time.Local().Format("15:04:05.000"), plain(e.Message))
				return err
			})
			if ctx.Err() != nil {
				return
			}
			if err != nil { // between two versions there may be no log
				select {
				case <-ctx.Done():
				case <-time.After(time.Second):
				}
			}
		}
	}()
	return func() { cancel(); <-ended }
}

// errChanged says that files changed while the package was starting.
var errChanged = errors.New("changed")

// settle waits until the package runs and is healthy and says where it is, or
// until something changes.
func (d *dev) settle(ctx context.Context, id string, changes <-chan string) error {
	start, said := time.Now(), ""
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for time.Since(start) < 5*time.Minute {
		p, err := d.c.Package(ctx, id)
		if err != nil {
			return err
		}
		how := p.State
		if p.State == "running" {
			how += ": " + health(p)
		}
		if how != said {
			d.say("%s is %s", id, how)
			said = how
		}
		switch {
		case p.State == "failed":
			return fmt.Errorf("%s: %s", id, health(p))
		case p.State == "stopped" && p.DesiredState == "stopped":
			d.say("it is not to run: stead packages start %s, or look at stead packages tasks %[1]s", id)
			return nil
		case p.State == "running" && (health(p) == "ok" || len(p.Health) == 0 && time.Since(start) > unchecked):
			return d.where(ctx, id)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case name, ok := <-changes:
			if ok {
				d.say("%s changed", name)
				return errChanged
			}
		case <-tick.C:
		}
	}
	return fmt.Errorf("%s is not healthy after five minutes", id)
}

// where prints the addresses.
func (d *dev) where(ctx context.Context, id string) error {
	hosts, err := d.c.Hosts(ctx, id)
	if err != nil {
		return err
	}
	var urls []string
	for _, h := range hosts {
		for _, b := range h.Bindings {
			for _, a := range b.Addresses {
				urls = append(urls, plain(a.URL))
			}
		}
	}
	if len(urls) > 4 {
		urls = append(urls[:4], "…")
	}
	d.say("%s runs: %s", id, strings.Join(urls, " "))
	return nil
}
