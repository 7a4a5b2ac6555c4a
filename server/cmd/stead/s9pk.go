package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"

	"github.com/spf13/cobra"

	"github.com/selfstead/selfstead/s9pk"
	"github.com/selfstead/selfstead/s9pk/remote"
	"github.com/selfstead/selfstead/s9pk/squashfs"
)

// exitUntrusted is the exit status for a package that is not to be trusted.
const exitUntrusted = 2

// statusError is an error with an exit status of its own.
type statusError struct {
	status int
	err    error
}

func (e *statusError) Error() string { return e.err.Error() }
func (e *statusError) Unwrap() error { return e.err }

// ExitCode is the status that the process ends with.
func (e *statusError) ExitCode() int { return e.status }

// untrusted are the verdicts on a package, as opposed to trouble in getting at it.
var untrusted = []error{
	s9pk.ErrFormat, s9pk.ErrTruncated, s9pk.ErrHashMismatch, s9pk.ErrUnsafe, s9pk.ErrLimit, s9pk.ErrCommitment,
	s9pk.ErrSignature, s9pk.ErrSize, s9pk.ErrManifest, squashfs.ErrFormat, remote.ErrChanged, errBreaches,
}

var errBreaches = errors.New("not a valid package")

// verdict gives errors that condemn a package their exit status, and one line.
func verdict(err error) error {
	if err == nil {
		return nil
	}
	for _, u := range untrusted {
		if errors.Is(err, u) {
			return &statusError{exitUntrusted, oneLine{hint(err)}}
		}
	}
	return err
}

// oneLine keeps names and reasons from starting a new line.
type oneLine struct{ error }

func (o oneLine) Error() string {
	return strings.NewReplacer("\n", "; ", "\r", " ").Replace(o.error.Error())
}

func (o oneLine) Unwrap() error { return o.error }

// newS9pkCommand is `stead s9pk`.
func newS9pkCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "s9pk",
		Short: "Make, check and take apart service packages",
		Long: `Make, check and take apart service packages (.s9pk, version 2).

Wherever a package is read, PACKAGE is a file or an http(s) URL; of a URL only
the parts that are needed are fetched. Everything that is shown has been proven
against the package's signature. The exit status is 2, and the one line on
standard error names the entry and the reason, when a package is not to be
trusted; 1 when anything else goes wrong.`,
		Args: cobra.NoArgs,
	}
	cmd.AddCommand(newInitCommand(), newSchemaCommand(), newPackCommand(), newInspectCommand(), newVerifyCommand(), newListCommand(), newCatCommand(),
		newExtractCommand(), newEditCommand(), newConvertCommand(), newSignCommand(),
		newOutboardCommand(), newKeyCommand())
	for _, c := range cmd.Commands() {
		judged(c)
	}
	return cmd
}

// judged has a command's errors turned into verdicts.
func judged(cmd *cobra.Command) {
	cmd.SilenceUsage = true
	if run := cmd.RunE; run != nil {
		cmd.RunE = func(c *cobra.Command, args []string) error { return verdict(run(c, args)) }
	}
	for _, sub := range cmd.Commands() {
		judged(sub)
	}
}

// printJSON writes one JSON document.
func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// plainLogger prints what libraries have to say as lines of text.
func plainLogger(w io.Writer, p *progress) *slog.Logger {
	return slog.New(&plainHandler{w: w, p: p})
}

type plainHandler struct {
	w     io.Writer
	p     *progress
	attrs []slog.Attr
}

func (h *plainHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelInfo }

func (h *plainHandler) Handle(_ context.Context, r slog.Record) error {
	line := r.Message
	add := func(a slog.Attr) bool { line += fmt.Sprintf(", %s %v", a.Key, a.Value); return true }
	for _, a := range h.attrs {
		add(a)
	}
	r.Attrs(add)
	if r.Level >= slog.LevelWarn {
		line = "warning: " + line
	}
	_, err := fmt.Fprintln(h.p.beside(h.w), line)
	return err
}

func (h *plainHandler) WithAttrs(a []slog.Attr) slog.Handler {
	return &plainHandler{h.w, h.p, append(append([]slog.Attr(nil), h.attrs...), a...)}
}

func (h *plainHandler) WithGroup(string) slog.Handler { return h }
