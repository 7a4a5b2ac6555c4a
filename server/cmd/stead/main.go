// Command stead is the selfstead server and its command line.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/selfstead/selfstead/server/problem"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run is the program but for the process around it; it returns the exit status.
func run(ctx context.Context, args []string, in io.Reader, out, errOut io.Writer) int {
	root := newRootCommand()
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(errOut)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return 130 // as a shell reports SIGINT
	}
	if text := explain(err); text != "" { // a status that is passed through says nothing
		fmt.Fprintln(errOut, "stead: "+text)
	}
	var coded interface{ ExitCode() int }
	if errors.As(err, &coded) {
		return coded.ExitCode()
	}
	return 1
}

func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "stead",
		Short: "A personal server: run it, use it, and work with its packages",
		Long: `stead is the selfstead server and its command line.

"stead serve" is the server. The commands that use one speak to the socket in
its folder (--dir, or STEAD_DIR), which needs root and no sign-in, or to a
server elsewhere that "stead login URL" has signed in to.`,
		Version:       version(),
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.AddCommand(
		newServeCommand(), newUpCommand(), newDownCommand(),
		newPackagesCommand(), newLogsCommand(), newOperationsCommand(), newStateCommand(), newNotificationsCommand(), newForwardsCommand(), newSystemCommand(),
		newClaimCommand(), newLoginCommand(), newLogoutCommand(), newPasswordCommand(), newSessionsCommand(), newContextsCommand(),
		newS9pkCommand(), newDevCommand(), newDBCommand(), newNATCommand(), newBaseCommand(), newContainerCommand(),
	)
	groups(root)
	return root
}

// groups makes commands that only hold others refuse a word they do not know;
// cobra by itself shows their help and reports success.
func groups(cmd *cobra.Command) {
	for _, sub := range cmd.Commands() {
		groups(sub)
	}
	if cmd.HasSubCommands() && !cmd.Runnable() {
		cmd.Args = cobra.ArbitraryArgs
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cmd.Help()
			}
			return fmt.Errorf("%s has no command %q; %[1]s --help lists them", cmd.CommandPath(), args[0])
		}
	}
}

// version is the module's, as the build recorded it.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" || info.Main.Version == "(devel)" {
		return "0.0.0-dev"
	}
	return strings.TrimPrefix(info.Main.Version, "v")
}

// explain is an error in words for a terminal: of a problem, everything that
// helps.
func explain(err error) string {
	var p *problem.Problem
	if !errors.As(err, &p) {
		return err.Error()
	}
	var b strings.Builder
	b.WriteString(p.Detail)
	if p.Detail == "" {
		b.WriteString(p.Title)
	}
	fmt.Fprintf(&b, " (%s)", p.Code)
	if p.Entry != "" {
		fmt.Fprintf(&b, "\n  in %s", p.Entry)
	}
	if p.Offset != nil {
		fmt.Fprintf(&b, "\n  at byte %d", *p.Offset)
	}
	for _, e := range p.Errors {
		fmt.Fprintf(&b, "\n  %s: %s", e.Location, e.Message)
	}
	if p.Fix != nil && p.Fix.Detail != "" {
		fmt.Fprintf(&b, "\n  what helps: %s (%s %s)", p.Fix.Detail, p.Fix.Method, p.Fix.Path)
	}
	return b.String()
}
