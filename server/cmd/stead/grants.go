package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/selfstead/selfstead/server/api"
	"github.com/selfstead/selfstead/server/client"
)

// grantsCommand is `stead packages grants`: who may reach a package inside the
// server.
func (t *target) grantsCommand() *cobra.Command {
	show := func(cmd *cobra.Command, list []api.Grant, err error) error {
		if err != nil {
			return err
		}
		return t.print(cmd.OutOrStdout(), list, func(w io.Writer) {
			rows := [][]string{{"client", "declared", "granted"}}
			for _, g := range list {
				declared, granted := "no", "-"
				if g.Declared {
					declared = "yes"
				}
				if g.Granted != nil {
					granted = g.Granted.Local().Format(time.DateTime)
				}
				rows = append(rows, []string{g.Client, declared, granted})
			}
			table(w, rows...)
		})
	}
	cmd := t.api("grants ID", "List which packages may reach a package inside the server", cobra.ExactArgs(1), func(cmd *cobra.Command, c *client.Client, args []string) error {
		list, err := c.Grants(cmd.Context(), args[0])
		return show(cmd, list, err)
	})
	cmd.AddCommand(
		t.api("add ID CLIENT", "Let a package reach another", cobra.ExactArgs(2), func(cmd *cobra.Command, c *client.Client, args []string) error {
			list, err := c.Grant(cmd.Context(), args[0], args[1])
			return show(cmd, list, err)
		}),
		t.api("remove ID CLIENT", "Take that back; connections that are open end", cobra.ExactArgs(2), func(cmd *cobra.Command, c *client.Client, args []string) error {
			if err := c.Revoke(cmd.Context(), args[0], args[1]); err != nil {
				return err
			}
			if !t.json {
				fmt.Fprintf(cmd.OutOrStdout(), "%s reaches %s no longer by a grant\n", plain(args[1]), plain(args[0]))
			}
			return nil
		}),
	)
	return cmd
}
