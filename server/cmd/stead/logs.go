package main

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/selfstead/selfstead/server/client"
	"github.com/selfstead/selfstead/server/journal"
)

// newLogsCommand is `stead logs`, the short form of `stead packages logs`.
func newLogsCommand() *cobra.Command {
	t := &target{}
	cmd := t.logsCommand()
	t.bind(cmd)
	return cmd
}

func (t *target) logsCommand() *cobra.Command {
	var on bool
	lines := 50
	cmd := t.api("logs ID", "Show what a package prints", cobra.ExactArgs(1), func(cmd *cobra.Command, c *client.Client, args []string) error {
		w := cmd.OutOrStdout()
		show := func(e journal.Entry) error {
			if t.json {
				return json.NewEncoder(w).Encode(e)
			}
			mark := " "
			if e.Stream == "stderr" {
				mark = "!"
			}
			_, err := fmt.Fprintf(w, "%s %s %s\n", e.Time.Local().Format("2006-01-02 15:04:05.000"), mark, plain(e.Message))
			return err
		}
		if on {
			return c.FollowLog(cmd.Context(), args[0], "", lines, show)
		}
		page, err := c.Log(cmd.Context(), args[0], journal.Query{Limit: lines})
		if err != nil {
			return err
		}
		for _, e := range page.Entries {
			if err := show(e); err != nil && err != io.EOF {
				return err
			}
		}
		return nil
	})
	cmd.Flags().BoolVarP(&on, "follow", "f", false, "go on with what is printed from now on")
	cmd.Flags().IntVarP(&lines, "lines", "n", lines, "entries of the past to show, at most 1000")
	return cmd
}
