package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/selfstead/selfstead/lxcrt"
)

func (c *containers) execCommand() *cobra.Command {
	var user, dir string
	var env []string
	var input, tty bool
	cmd := &cobra.Command{
		Use: "exec NAME COMMAND...", Short: "Run a command in a running container", Args: cobra.MinimumNArgs(2), ValidArgsFunction: c.complete(false),
		RunE: func(cmd *cobra.Command, args []string) error {
			extra, err := parseEnv(env)
			if err != nil {
				return err
			}
			rt, unlock, err := c.open(cmd.Context())
			if err != nil {
				return err
			}
			defer c.close(rt)
			ct, err := rt.Load(cmd.Context(), args[0])
			unlock()
			if err != nil {
				return c.explain(args[0], err)
			}
			e := ct.Spec().Env
			return c.explain(args[0], execute(cmd, ct, lxcrt.ExecSpec{Argv: args[1:], Env: append(slices.Clone(e), extra...), User: user, Dir: dir}, input, tty))
		},
	}
	flags := cmd.Flags()
	flags.SetInterspersed(false)
	flags.BoolVarP(&input, "interactive", "i", false, "give the command standard input")
	flags.BoolVarP(&tty, "tty", "t", false, "give it a terminal")
	flags.StringArrayVarP(&env, "env", "e", nil, "NAME=VALUE for the command; NAME takes it from here")
	flags.StringVarP(&user, "user", "u", "", "user[:group] inside")
	flags.StringVarP(&dir, "workdir", "w", "", "folder that the command starts in")
	return cmd
}

// terminalOf is the terminal at standard input.
func terminalOf(cmd *cobra.Command) (*os.File, error) {
	if f, ok := cmd.InOrStdin().(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return f, nil
	}
	return nil, errors.New("standard input is no terminal; leave -t out")
}

// execute runs a program inside on our own streams, and returns its exit status
// as an error unless that is 0.
func execute(cmd *cobra.Command, ct *lxcrt.Container, s lxcrt.ExecSpec, input, tty bool) error {
	ctx := cmd.Context()
	if tty {
		return executeTTY(cmd, ct, s)
	}
	if input {
		s.Stdin = cmd.InOrStdin()
	}
	s.Stdout, s.Stderr = cmd.OutOrStdout(), cmd.ErrOrStderr()
	p, err := ct.Exec(ctx, s)
	if err != nil {
		return notFound(s, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = p.Signal(unix.SIGINT) })
	defer stop()
	st, err := p.Wait()
	if err != nil {
		return err
	}
	return passThrough(st)
}

func executeTTY(cmd *cobra.Command, ct *lxcrt.Container, s lxcrt.ExecSpec) error {
	in, err := terminalOf(cmd)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(s.Env, func(e string) bool { return strings.HasPrefix(e, "TERM=") }) {
		t := os.Getenv("TERM")
		if t == "" {
			t = "xterm"
		}
		s.Env = append(s.Env, "TERM="+t)
	}
	size := func() lxcrt.WindowSize {
		cols, rows, err := term.GetSize(int(in.Fd()))
		if err != nil {
			return lxcrt.WindowSize{Rows: 24, Cols: 80}
		}
		return lxcrt.WindowSize{Rows: uint16(rows), Cols: uint16(cols)}
	}
	s.TTY, s.Size = true, size()
	resized := make(chan os.Signal, 1)
	signal.Notify(resized, unix.SIGWINCH)
	defer signal.Stop(resized)
	p, err := ct.Exec(cmd.Context(), s)
	if err != nil {
		return notFound(s, err)
	}
	before, err := term.MakeRaw(int(in.Fd()))
	if err != nil {
		_ = p.Signal(unix.SIGKILL)
		_, _ = p.Wait()
		return err
	}
	defer func() { _ = term.Restore(int(in.Fd()), before) }()
	over := make(chan struct{})
	defer close(over)
	go func() {
		for {
			select {
			case <-resized:
				_ = p.Resize(size())
			case <-over:
				return
			}
		}
	}()
	stop := context.AfterFunc(cmd.Context(), func() { _ = p.Signal(unix.SIGHUP) })
	defer stop()
	go func() { _, _ = io.Copy(p.TTY(), in) }() // ends with this process
	_, _ = io.Copy(cmd.OutOrStdout(), p.TTY())  // the end of a terminal reads as an error
	st, err := p.Wait()
	if err != nil {
		return err
	}
	return passThrough(st)
}

// notFound ends as a shell does for a program that is not there.
func notFound(s lxcrt.ExecSpec, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return &codedError{127, fmt.Errorf("there is no %s inside, or no such user or folder: %w", s.Argv[0], err)}
	}
	return err
}

type codedError struct {
	code int
	error
}

func (e *codedError) ExitCode() int { return e.code }
func (e *codedError) Unwrap() error { return e.error }
