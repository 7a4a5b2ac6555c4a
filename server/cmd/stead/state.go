package main

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/selfstead/selfstead/server/api"
	"github.com/selfstead/selfstead/server/client"
)

// newStateCommand is `stead state`.
func newStateCommand() *cobra.Command {
	t := &target{}
	pointer := func(args []string) string {
		if len(args) == 0 {
			return ""
		}
		return args[0]
	}
	cmd := t.api("state [POINTER]", "Show the server's state, or the part at a JSON Pointer", cobra.MaximumNArgs(1), func(cmd *cobra.Command, c *client.Client, args []string) error {
		dump, err := c.State(cmd.Context(), pointer(args))
		if err != nil {
			return err
		}
		if t.json {
			return printJSON(cmd.OutOrStdout(), dump)
		}
		return printJSON(cmd.OutOrStdout(), dump.Value)
	})
	t.bind(cmd)
	cmd.AddCommand(t.api("follow [POINTER]", "Show the state and then each change of it, a line each", cobra.MaximumNArgs(1), func(cmd *cobra.Command, c *client.Client, args []string) error {
		enc := json.NewEncoder(cmd.OutOrStdout())
		enc.SetEscapeHTML(false)
		return c.FollowState(cmd.Context(), pointer(args), 0,
			func(d api.Dump) error { return enc.Encode(d) }, func(r api.Revision) error { return enc.Encode(r) })
	}))
	return cmd
}

// newForwardsCommand is `stead forwards`.
func newForwardsCommand() *cobra.Command {
	t := &target{}
	cmd := t.api("forwards", "List the published ports", cobra.NoArgs, func(cmd *cobra.Command, c *client.Client, _ []string) error {
		list, err := c.Forwards(cmd.Context())
		if err != nil {
			return err
		}
		return t.print(cmd.OutOrStdout(), list, func(w io.Writer) {
			rows := [][]string{{"source", "target", "ports", "protocols", "for"}}
			for _, f := range list {
				rows = append(rows, []string{f.Source, f.Target, fmt.Sprint(f.Count), f.Protocols, f.Name})
			}
			table(w, rows...)
		})
	})
	t.bind(cmd)
	return cmd
}

// newSystemCommand is `stead system`.
func newSystemCommand() *cobra.Command {
	t := &target{}
	cmd := t.api("system", "Show what the server is and runs on", cobra.NoArgs, func(cmd *cobra.Command, c *client.Client, _ []string) error {
		s, err := c.System(cmd.Context())
		if err != nil {
			return err
		}
		return t.print(cmd.OutOrStdout(), s, func(w io.Writer) {
			owner := "none; stead claim"
			if s.Claimed {
				owner = "yes"
			}
			table(w, []string{"hostname", "version", "architecture", "kernel", "started", "owner"},
				[]string{s.Hostname, s.Version, s.Architecture, s.Kernel, ago(s.Started), owner})
		})
	})
	t.bind(cmd)
	cmd.AddCommand(t.smtpCommand())
	cmd.AddCommand(t.machineCommands()...)
	return cmd
}
