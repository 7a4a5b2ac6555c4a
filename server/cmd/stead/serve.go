package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/selfstead/selfstead/server/daemon"
)

// stopGrace is how long services and requests have to end by themselves.
const stopGrace = 2 * time.Minute

// handGrace is how long requests have when services go on.
const handGrace = 10 * time.Second

// serveFlags are what serve and up have in common.
type serveFlags struct {
	dir, listen, base, level string
	plain, manageHost        bool
	sshKeys                  string
}

func (f *serveFlags) bind(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.dir, "dir", defaultDir, "state folder; made if missing, for root alone")
	flags.StringVar(&f.listen, "listen", "127.0.0.1:8080", "TCP address for clients: plain HTTP on loopback, else TLS with the server's own certificate")
	flags.BoolVar(&f.plain, "plain", false, "plain HTTP on any address, for a proxy in front")
	flags.StringVar(&f.base, "base-image", os.Getenv("STEAD_BASE"), "squashfs image that every container starts from (default: one in the state folder, built on the first run)")
	flags.BoolVar(&f.manageHost, "manage-host", false, "let the server change this machine's host name and time zone")
	flags.StringVar(&f.sshKeys, "authorized-keys", "", "file that gets the SSH keys of the API, between two marks (default: none)")
	flags.StringVar(&f.level, "log-level", "info", "debug, info, warn or error")
}

// newServeCommand is `stead serve`.
func newServeCommand() *cobra.Command {
	f := &serveFlags{}
	cmd := &cobra.Command{
		Use: "serve", Short: "Run the server", Args: cobra.NoArgs,
		Long: `Run the server.

SIGINT, and "stead down", stop the services too; what they should be is
remembered. SIGTERM leaves them running, and the next start takes them over, as
it does after a crash. A second signal makes either hurry.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.serve(cmd, nil) },
	}
	f.bind(cmd)
	return cmd
}

// serve runs a daemon until it is told to end. ready is called once services
// are up to what the document says; it may be nil.
func (f *serveFlags) serve(cmd *cobra.Command, ready func(ctx context.Context, d *daemon.Daemon, w io.Writer) error) error {
	var level slog.Level
	if err := level.UnmarshalText([]byte(f.level)); err != nil {
		return fmt.Errorf("--log-level: %w", err)
	}
	tuneMemory()
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(signals)

	errOut, out := cmd.ErrOrStderr(), cmd.OutOrStdout()
	log := slog.New(slog.NewTextHandler(errOut, &slog.HandlerOptions{Level: level}))
	slog.SetDefault(log)
	ctx, cancel := context.WithCancel(context.WithoutCancel(cmd.Context()))
	defer cancel()
	d, err := daemon.Open(ctx, daemon.Options{
		Dir: f.dir, Listen: f.listen, Plain: f.plain, ManageHost: f.manageHost, SSHKeys: f.sshKeys, BaseImage: f.base, BaseCaches: baseCaches(),
		Version: version(), Logger: log,
	})
	if err != nil {
		return err
	}
	announce(out, f.dir, d)

	served := make(chan error, 1)
	go func() {
		err := d.Serve(ctx)
		if err == nil && ready != nil {
			err = ready(ctx, d, out)
		}
		if ctx.Err() != nil {
			err = nil
		}
		served <- err
	}()
	how, failure := "", error(nil)
	for how == "" && failure == nil {
		select {
		case s := <-signals:
			how = daemon.HandOver
			if s == syscall.SIGINT {
				how = daemon.Shutdown
			}
		case how = <-d.Ended():
		case failure = <-served:
			served = nil
		}
	}
	if failure != nil && ready != nil {
		how = daemon.Shutdown // nobody is left who would take over
	}
	return f.end(d, cancel, signals, served, how, failure, log)
}

// end takes the daemon down, hurrying at a second signal.
func (f *serveFlags) end(d *daemon.Daemon, cancel context.CancelFunc, signals <-chan os.Signal, served <-chan error, how string, failure error, log *slog.Logger) error {
	cancel() // a start that is still under way
	if served != nil {
		<-served
	}
	stop, grace := how == daemon.Shutdown, handGrace
	if stop {
		grace = stopGrace
		log.Info("stopping; services stop too")
	} else {
		log.Info("stopping; services go on")
	}
	ctx, hurry := context.WithTimeout(context.Background(), grace)
	defer hurry()
	done := make(chan struct{})
	defer close(done)
	go func() {
		select {
		case <-signals:
			log.Warn("a second signal: not waiting any longer")
			hurry()
		case <-done:
		}
	}()
	if err := d.Close(ctx, stop); err != nil {
		log.Error("not everything was taken down; the next start cleans up", "err", err)
		if failure == nil {
			failure = err
		}
	}
	return failure
}

// baseCaches are folders that may hold a finished base image: the one beside
// this program, where make leaves it, and that of the machine's own server.
func baseCaches() []string {
	caches := []string{filepath.Join(defaultDir, "base")}
	if exe, err := os.Executable(); err == nil {
		caches = append(caches, filepath.Join(filepath.Dir(exe), "base"))
	}
	return caches
}

// announce tells the console where the server is.
func announce(w io.Writer, dir string, d *daemon.Daemon) {
	fmt.Fprintf(w, "API     %s/v1\nDocs    %s/docs\nSocket  %s\n", d.URL(), d.URL(), d.Socket())
	if fp := d.Fingerprint(); fp != "" {
		fmt.Fprintf(w, "Root    %s\n", fp)
	}
	if code := d.ClaimCode(); code != "" {
		fmt.Fprintf(w, "Claim   %s\n        This server has no owner yet: POST the code to /v1/setup:claim, or run\n        stead claim --dir %s\n", code, dir)
	}
}

// tuneMemory keeps the server small beside its services: the collector runs
// earlier than by default, and hard when the heap comes near the limit.
func tuneMemory() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(50)
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(96 << 20)
	}
}
