package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/selfstead/selfstead/server/client"
)

// api makes a command that calls the server.
func (t *target) api(use, short string, args cobra.PositionalArgs, run func(cmd *cobra.Command, c *client.Client, args []string) error) *cobra.Command {
	return &cobra.Command{Use: use, Short: short, Args: args, ValidArgsFunction: t.complete, RunE: func(cmd *cobra.Command, args []string) error {
		c, err := t.client()
		if err != nil {
			return err
		}
		defer c.Close()
		return run(cmd, c, args)
	}}
}

// complete offers the names that the first argument of a command may have.
func (t *target) complete(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	names := []cobra.Completion{}
	if strings.HasSuffix(cmd.Use, "FILE") {
		return names, cobra.ShellCompDirectiveDefault
	}
	if len(args) > 0 || !strings.Contains(cmd.Use, " ID") {
		return names, cobra.ShellCompDirectiveNoFileComp
	}
	c, err := t.client()
	if err != nil {
		return names, cobra.ShellCompDirectiveNoFileComp
	}
	defer c.Close()
	switch {
	case cmd.Parent() != nil && cmd.Parent().Name() == "operations":
		list, _ := c.Operations(cmd.Context())
		for _, op := range list {
			names = append(names, cobra.CompletionWithDesc(op.ID, op.Kind+" "+op.Package))
		}
	case cmd.Parent() != nil && cmd.Parent().Name() == "sessions":
		list, _ := c.Sessions(cmd.Context())
		for _, s := range list {
			names = append(names, cobra.CompletionWithDesc(s.ID, plain(s.Name)))
		}
	default:
		list, _ := c.Packages(cmd.Context())
		for _, p := range list {
			names = append(names, cobra.CompletionWithDesc(p.ID, plain(p.Title)))
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// print writes v as JSON when that was asked for, else what draw makes of it.
func (t *target) print(w io.Writer, v any, draw func(w io.Writer)) error {
	if t.json {
		return printJSON(w, v)
	}
	draw(w)
	return nil
}

// table writes rows in columns; the first row is the heading.
func table(w io.Writer, rows ...[]string) {
	tw := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	for i, row := range rows {
		for j, cell := range row {
			if i == 0 {
				cell = strings.ToUpper(cell)
			}
			if j > 0 {
				fmt.Fprint(tw, "\t")
			}
			fmt.Fprint(tw, plain(cell))
		}
		fmt.Fprintln(tw)
	}
	tw.Flush()
}

// plain keeps what packages say from moving the cursor or starting lines.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return ' '
		}
		return r
	}, s)
}

// ago is a time in words.
func ago(t time.Time) string {
	d := time.Since(t)
	switch {
	case d < time.Minute:
		return "just now"
	case d < time.Hour:
		return fmt.Sprintf("%d min ago", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h ago", int(d.Hours()))
	}
	return t.Local().Format("2006-01-02")
}
