package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/selfstead/selfstead/server/client"
	"github.com/selfstead/selfstead/server/operation"
)

// newOperationsCommand is `stead operations`.
func newOperationsCommand() *cobra.Command {
	t := &target{}
	cmd := t.api("operations", "List what the server works on", cobra.NoArgs, func(cmd *cobra.Command, c *client.Client, _ []string) error {
		list, err := c.Operations(cmd.Context())
		if err != nil {
			return err
		}
		return t.print(cmd.OutOrStdout(), list, func(w io.Writer) {
			rows := [][]string{{"id", "kind", "package", "status", "progress", "begun"}}
			for _, op := range list {
				rows = append(rows, []string{op.ID, op.Kind, op.Package, string(op.Status), progressText(op), ago(op.Created)})
			}
			table(w, rows...)
		})
	})
	t.bind(cmd)
	cmd.AddCommand(
		t.api("follow ID", "Follow an operation to its end", cobra.ExactArgs(1), func(cmd *cobra.Command, c *client.Client, args []string) error {
			return t.await(cmd, c, operation.Operation{ID: args[0]})
		}),
		t.api("cancel ID", "Cancel an operation", cobra.ExactArgs(1), func(cmd *cobra.Command, c *client.Client, args []string) error {
			op, err := c.CancelOperation(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return t.print(cmd.OutOrStdout(), op, func(w io.Writer) { fmt.Fprintln(w, "asked to end") })
		}),
	)
	return cmd
}

func progressText(op operation.Operation) string {
	if op.Problem != nil {
		return op.Problem.Code
	}
	p := op.Progress
	switch {
	case op.Done() || p.Phase == "":
		return "-"
	case p.Total != nil && *p.Total > 0:
		return fmt.Sprintf("%s %d%%", p.Phase, 100*p.Done / *p.Total)
	}
	return fmt.Sprintf("%s %d %s", p.Phase, p.Done, p.Unit)
}
