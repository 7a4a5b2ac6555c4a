package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/selfstead/selfstead/server/api"
	"github.com/selfstead/selfstead/server/client"
	"github.com/selfstead/selfstead/server/operation"
)

// newPackagesCommand is `stead packages`.
func newPackagesCommand() *cobra.Command {
	t := &target{}
	cmd := &cobra.Command{Use: "packages", Aliases: []string{"package", "pkg"}, Short: "Install, run and remove packages", Args: cobra.NoArgs}
	t.bind(cmd)
	cmd.AddCommand(
		t.api("list", "List the packages", cobra.NoArgs, t.listPackages),
		t.api("show ID", "Show one package and where it is reached", cobra.ExactArgs(1), t.showPackage),
		t.sideloadCommand(),
		t.desiredCommand("start", "running", "Start a package and keep it running"),
		t.desiredCommand("stop", "stopped", "Stop a package"),
		t.api("restart ID", "Restart a package", cobra.ExactArgs(1), func(cmd *cobra.Command, c *client.Client, args []string) error {
			p, err := c.Restart(cmd.Context(), args[0])
			return t.printPackage(cmd.OutOrStdout(), p, err)
		}),
		t.api("rebuild ID", "Build a package's container anew", cobra.ExactArgs(1), func(cmd *cobra.Command, c *client.Client, args []string) error {
			p, err := c.Rebuild(cmd.Context(), args[0])
			return t.printPackage(cmd.OutOrStdout(), p, err)
		}),
		t.uninstallCommand(),
		t.grantsCommand(),
		t.limitsCommand(),
		t.logsCommand(),
		t.shellCommand(),
		t.actionsCommand(),
		t.api("tasks ID", "List what a package is asked to do", cobra.ExactArgs(1), t.listTasks),
	)
	return cmd
}

func (t *target) listPackages(cmd *cobra.Command, c *client.Client, _ []string) error {
	list, err := c.Packages(cmd.Context())
	if err != nil {
		return err
	}
	return t.print(cmd.OutOrStdout(), list, func(w io.Writer) {
		rows := [][]string{{"id", "version", "state", "desired", "health", "title"}}
		for _, p := range list {
			rows = append(rows, []string{p.ID, p.Version, p.State, p.DesiredState, health(p), p.Title})
		}
		table(w, rows...)
	})
}

// health is the health of a package in one word or two.
func health(p api.Package) string {
	good := 0
	for _, id := range slices.Sorted(maps.Keys(p.Health)) {
		switch h := p.Health[id]; h.Result {
		case "success", "disabled":
			good++
		default:
			return h.Name + ": " + h.Result
		}
	}
	switch {
	case p.Error != nil:
		return p.Error.Message
	case good == 0:
		return "-"
	}
	return "ok"
}

func (t *target) showPackage(cmd *cobra.Command, c *client.Client, args []string) error {
	p, err := c.Package(cmd.Context(), args[0])
	if err != nil {
		return err
	}
	hosts, err := c.Hosts(cmd.Context(), args[0])
	if err != nil {
		return err
	}
	shown := struct {
		api.Package
		Hosts []api.Host `json:"hosts"`
	}{p, hosts}
	return t.print(cmd.OutOrStdout(), shown, func(w io.Writer) {
		fmt.Fprintf(w, "%s %s %s\n", plain(p.Title), plain(p.Version), plain(p.ID))
		if p.Summary != "" {
			fmt.Fprintln(w, plain(p.Summary))
		}
		fmt.Fprintf(w, "\nstate    %s (wanted: %s)\n", p.State, p.DesiredState)
		if p.Error != nil {
			fmt.Fprintf(w, "error    %s\n", plain(p.Error.Message))
		}
		for _, id := range slices.Sorted(maps.Keys(p.Health)) {
			h := p.Health[id]
			fmt.Fprintf(w, "health   %s: %s %s\n", plain(h.Name), h.Result, plain(h.Message))
		}
		for _, h := range hosts {
			for _, b := range h.Bindings {
				for _, a := range b.Addresses {
					fmt.Fprintf(w, "address  %s\n", plain(a.URL))
				}
			}
		}
	})
}

func (t *target) printPackage(w io.Writer, p api.Package, err error) error {
	if err != nil {
		return err
	}
	return t.print(w, p, func(w io.Writer) { fmt.Fprintf(w, "%s is %s (wanted: %s)\n", p.ID, p.State, p.DesiredState) })
}

func (t *target) desiredCommand(verb, state, short string) *cobra.Command {
	force := false
	cmd := t.api(verb+" ID", short, cobra.ExactArgs(1), func(cmd *cobra.Command, c *client.Client, args []string) error {
		p, err := c.SetDesired(cmd.Context(), args[0], state, force)
		return t.printPackage(cmd.OutOrStdout(), p, err)
	})
	cmd.Flags().BoolVar(&force, "force", false, "even where the package or others object")
	return cmd
}

func (t *target) uninstallCommand() *cobra.Command {
	var soft, force bool
	cmd := t.api("uninstall ID", "Remove a package and its data", cobra.ExactArgs(1), func(cmd *cobra.Command, c *client.Client, args []string) error {
		op, err := c.Uninstall(cmd.Context(), args[0], soft, force)
		if err != nil {
			return err
		}
		return t.await(cmd, c, op)
	})
	cmd.Flags().BoolVar(&soft, "soft", false, "keep the package's data")
	cmd.Flags().BoolVar(&force, "force", false, "go on when the package's own clean-up fails")
	return cmd
}

func (t *target) sideloadCommand() *cobra.Command {
	var o api.SideloadOptions
	cmd := t.api("sideload FILE", "Install a package from a file, or update it (- for standard input)", cobra.ExactArgs(1), func(cmd *cobra.Command, c *client.Client, args []string) error {
		body, size := cmd.InOrStdin(), int64(-1)
		if args[0] != "-" {
			f, err := os.Open(args[0])
			if err != nil {
				return err
			}
			defer f.Close()
			info, err := f.Stat()
			if err != nil {
				return err
			}
			body, size = f, info.Size()
		}
		bar := newProgress(cmd.ErrOrStderr())
		op, err := c.SideloadWith(cmd.Context(), &counted{r: body, tell: func(n int64) { bar.set("upload", n, max(size, 0)) }}, size, o)
		bar.done()
		if err != nil {
			return err
		}
		return t.await(cmd, c, op)
	})
	cmd.Flags().BoolVar(&o.Reinstall, "reinstall", false, "install even the version that is installed, once more over its data")
	cmd.Flags().StringVar(&o.AcceptSigner, "accept-signer", "", "let this new signer, in hex, take the package over")
	return cmd
}

// counted tells how much was read.
type counted struct {
	r    io.Reader
	n    int64
	tell func(int64)
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	c.tell(c.n)
	return n, err
}

// await follows an operation to its end and prints that. An operation that
// does not succeed is an error.
func (t *target) await(cmd *cobra.Command, c *client.Client, op operation.Operation) error {
	end, err := follow(cmd.Context(), cmd.ErrOrStderr(), c, op.ID)
	if err != nil {
		return err
	}
	if t.json {
		if err := printJSON(cmd.OutOrStdout(), end); err != nil {
			return err
		}
	}
	if end.Status != operation.Succeeded {
		if end.Problem != nil {
			return end.Problem
		}
		return errors.New(end.Kind + " " + string(end.Status))
	}
	if !t.json {
		fmt.Fprintf(cmd.OutOrStdout(), "%s %s: done\n", end.Kind, plain(end.Package))
	}
	return nil
}

// follow draws an operation's progress until it ends.
func follow(ctx context.Context, w io.Writer, c *client.Client, id string) (operation.Operation, error) {
	bar := newProgress(w)
	defer bar.done()
	phase := ""
	return c.FollowOperation(ctx, id, func(op operation.Operation) {
		p := op.Progress
		if op.Done() || p.Phase == "" {
			return
		}
		if p.Unit == operation.Bytes {
			total := int64(0)
			if p.Total != nil {
				total = *p.Total
			}
			bar.set(p.Phase, p.Done, total)
			return
		}
		if p.Phase != phase {
			phase = p.Phase
			fmt.Fprintln(bar.beside(w), plain(phase)+"…")
		}
	})
}

func (t *target) actionsCommand() *cobra.Command {
	cmd := t.api("actions ID", "List what a package offers to do", cobra.ExactArgs(1), func(cmd *cobra.Command, c *client.Client, args []string) error {
		list, err := c.Actions(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		return t.print(cmd.OutOrStdout(), list, func(w io.Writer) {
			rows := [][]string{{"id", "name", "input", "when", "description"}}
			for _, a := range list {
				input := "no"
				if a.HasInput {
					input = "yes"
				}
				rows = append(rows, []string{a.ID, a.Name, input, strings.TrimPrefix(a.AllowedStatuses, "only-"), a.Description})
			}
			table(w, rows...)
		})
	})
	var input string
	form := t.api("form ID ACTION", "Show the form of an action with its current values", cobra.ExactArgs(2), func(cmd *cobra.Command, c *client.Client, args []string) error {
		in, err := c.ActionInput(cmd.Context(), args[0], args[1], api.ActionInputRequest{})
		if err != nil {
			return err
		}
		return printJSON(cmd.OutOrStdout(), in)
	})
	run := t.api("run ID ACTION", "Run an action", cobra.ExactArgs(2), func(cmd *cobra.Command, c *client.Client, args []string) error {
		req, err := actionRequest(cmd, c, args[0], args[1], input)
		if err != nil {
			return err
		}
		result, err := c.RunAction(cmd.Context(), args[0], args[1], req)
		if err != nil {
			return err
		}
		return t.print(cmd.OutOrStdout(), result, func(w io.Writer) { drawResult(w, result) })
	})
	run.Flags().StringVar(&input, "input", "", "the filled-in form as JSON, or @FILE; its current values otherwise")
	cmd.AddCommand(form, run)
	return cmd
}

// actionRequest fills in the form of an action that has one.
func actionRequest(cmd *cobra.Command, c *client.Client, id, action, input string) (api.ActionRunRequest, error) {
	list, err := c.Actions(cmd.Context(), id)
	if err != nil {
		return api.ActionRunRequest{}, err
	}
	i := slices.IndexFunc(list, func(a api.Action) bool { return a.ID == action })
	if i >= 0 && !list[i].HasInput {
		return api.ActionRunRequest{}, nil
	}
	form, err := c.ActionInput(cmd.Context(), id, action, api.ActionInputRequest{})
	if err != nil {
		return api.ActionRunRequest{}, err
	}
	req := api.ActionRunRequest{EventID: form.EventID, Input: form.Value}
	if input != "" {
		text := []byte(input)
		if name, ok := strings.CutPrefix(input, "@"); ok {
			if text, err = os.ReadFile(name); err != nil {
				return req, err
			}
		}
		if !json.Valid(text) {
			return req, errors.New("the input is not JSON")
		}
		req.Input = text
	}
	return req, nil
}

// drawResult shows an action's result: its title and message, then the rest.
func drawResult(w io.Writer, raw json.RawMessage) {
	var result struct {
		Title   string          `json:"title"`
		Message *string         `json:"message"`
		Result  json.RawMessage `json:"result"`
	}
	if len(raw) == 0 || string(bytes.TrimSpace(raw)) == "null" || json.Unmarshal(raw, &result) != nil {
		fmt.Fprintln(w, "done")
		return
	}
	fmt.Fprintln(w, plain(result.Title))
	if result.Message != nil {
		fmt.Fprintln(w, plain(*result.Message))
	}
	if len(result.Result) > 0 && string(result.Result) != "null" {
		printJSON(w, result.Result) //nolint:errcheck // a terminal
	}
}

func (t *target) listTasks(cmd *cobra.Command, c *client.Client, args []string) error {
	list, err := c.Tasks(cmd.Context(), args[0])
	if err != nil {
		return err
	}
	return t.print(cmd.OutOrStdout(), list, func(w io.Writer) {
		rows := [][]string{{"id", "active", "package", "action", "severity", "reason"}}
		for _, task := range list {
			var d struct{ PackageID, ActionID, Severity, Reason string }
			json.Unmarshal(task.Task, &d) //nolint:errcheck // shown as empty
			rows = append(rows, []string{task.ID, fmt.Sprint(task.Active), d.PackageID, d.ActionID, d.Severity, d.Reason})
		}
		table(w, rows...)
	})
}
