package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/selfstead/selfstead/server/api"
	"github.com/selfstead/selfstead/server/client"
	"github.com/selfstead/selfstead/server/journal"
)

// machineCommands are those below `stead system` about the machine itself.
func (t *target) machineCommands() []*cobra.Command {
	names := func(cmd *cobra.Command, n api.Identity, err error) error {
		if err != nil {
			return err
		}
		return t.print(cmd.OutOrStdout(), n, func(w io.Writer) { table(w, []string{"id", "name", "hostname"}, []string{n.ID, n.Name, n.Hostname}) })
	}
	var name, hostname string
	identity := t.api("identity", "Show how the server is called, or change it", cobra.NoArgs, func(cmd *cobra.Command, c *client.Client, _ []string) error {
		var in api.IdentityChange
		if cmd.Flags().Changed("name") {
			in.Name = &name
		}
		if cmd.Flags().Changed("hostname") {
			in.Hostname = &hostname
		}
		if in == (api.IdentityChange{}) {
			n, err := c.Identity(cmd.Context())
			return names(cmd, n, err)
		}
		n, err := c.ChangeIdentity(cmd.Context(), in)
		return names(cmd, n, err)
	})
	identity.Flags().StringVar(&name, "name", "", "name for people")
	identity.Flags().StringVar(&hostname, "hostname", "", "host name of the machine")
	zone := ""
	clock := t.api("time", "Show the server's time, or set its time zone", cobra.NoArgs, func(cmd *cobra.Command, c *client.Client, _ []string) error {
		var at api.Clock
		var err error
		if zone != "" {
			at, err = c.SetTimezone(cmd.Context(), zone)
		} else {
			at, err = c.Time(cmd.Context())
		}
		if err != nil {
			return err
		}
		return t.print(cmd.OutOrStdout(), at, func(w io.Writer) {
			table(w, []string{"now", "time zone", "synced"}, []string{at.Now.Format(time.RFC3339), at.Timezone, fmt.Sprint(at.Synced)})
		})
	})
	clock.Flags().StringVar(&zone, "zone", "", "time zone to set, such as Europe/Vienna")
	return []*cobra.Command{
		identity, clock,
		t.api("device", "Show what the server's machine is", cobra.NoArgs, func(cmd *cobra.Command, c *client.Client, _ []string) error {
			d, err := c.Device(cmd.Context())
			if err != nil {
				return err
			}
			return t.print(cmd.OutOrStdout(), d, func(w io.Writer) {
				table(w, []string{"product", "os", "kernel", "cpu", "cpus", "memory"}, []string{d.Product, d.OS, d.Kernel, d.CPU, fmt.Sprint(d.CPUs), mib(d.Memory)})
			})
		}),
		t.metricsCommand(), t.serverLogsCommand(), t.keysCommand(),
		t.api("gateways", "List the ways out of the server", cobra.NoArgs, func(cmd *cobra.Command, c *client.Client, _ []string) error {
			list, err := c.Gateways(cmd.Context())
			if err != nil {
				return err
			}
			return t.print(cmd.OutOrStdout(), list, func(w io.Writer) {
				rows := [][]string{{"id", "up", "addresses", "next hop"}}
				for _, g := range list {
					rows = append(rows, []string{g.ID, fmt.Sprint(g.Up), strings.Join(g.Addresses, " "), strings.TrimSpace(g.NextHop4 + " " + g.NextHop6)})
				}
				table(w, rows...)
			})
		}),
	}
}

func mib(n int64) string { return fmt.Sprintf("%d MiB", n>>20) }

func (t *target) metricsCommand() *cobra.Command {
	return t.api("metrics", "Show how busy the server and its packages are", cobra.NoArgs, func(cmd *cobra.Command, c *client.Client, _ []string) error {
		m, err := c.Metrics(cmd.Context())
		if err != nil {
			return err
		}
		return t.print(cmd.OutOrStdout(), m, func(w io.Writer) {
			h := m.Host
			table(w, []string{"cpus", "load", "memory", "of", "disk free", "of"},
				[]string{fmt.Sprint(h.CPUs), fmt.Sprintf("%.2f", h.Load1), mib(h.MemoryTotal - h.MemoryAvailable), mib(h.MemoryTotal), mib(h.DiskAvailable), mib(h.DiskTotal)})
			rows := [][]string{{"package", "cpu seconds", "memory", "tasks"}}
			for _, p := range m.Packages {
				rows = append(rows, []string{p.ID, fmt.Sprintf("%.1f", p.CPUSeconds), mib(p.Memory), fmt.Sprint(p.PIDs)})
			}
			fmt.Fprintln(w)
			table(w, rows...)
		})
	})
}

func (t *target) serverLogsCommand() *cobra.Command {
	follow, whole, lines := false, false, 50
	cmd := t.api("logs", "Show the server's own log", cobra.NoArgs, func(cmd *cobra.Command, c *client.Client, _ []string) error {
		w := cmd.OutOrStdout()
		show := func(e journal.Entry) error {
			if t.json {
				return printJSON(w, e)
			}
			_, err := fmt.Fprintf(w, "%s %s\n", e.Time.Local().Format("2006-01-02 15:04:05.000"), plain(e.Message))
			return err
		}
		switch {
		case whole:
			return c.DownloadLog(cmd.Context(), "", w)
		case follow:
			return c.FollowServerLog(cmd.Context(), lines, show)
		}
		page, err := c.ServerLog(cmd.Context(), lines)
		if err != nil {
			return err
		}
		for _, e := range page.Entries {
			if err := show(e); err != nil {
				return err
			}
		}
		return nil
	})
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with what comes")
	cmd.Flags().BoolVar(&whole, "all", false, "the whole log, from its oldest entry")
	cmd.Flags().IntVarP(&lines, "lines", "n", lines, "entries of the past to show, at most 1000")
	return cmd
}

func (t *target) keysCommand() *cobra.Command {
	row := func(w io.Writer, keys ...api.SSHKey) {
		rows := [][]string{{"id", "algorithm", "fingerprint", "comment", "added"}}
		for _, k := range keys {
			rows = append(rows, []string{k.ID[:min(len(k.ID), 12)], k.Algorithm, k.Fingerprint, k.Comment, ago(k.Added)})
		}
		table(w, rows...)
	}
	cmd := t.api("ssh-keys", "List the SSH keys that may come in", cobra.NoArgs, func(cmd *cobra.Command, c *client.Client, _ []string) error {
		keys, err := c.SSHKeys(cmd.Context())
		if err != nil {
			return err
		}
		return t.print(cmd.OutOrStdout(), keys, func(w io.Writer) { row(w, keys...) })
	})
	cmd.AddCommand(
		t.api("add FILE", "Let the SSH public key of a file in", cobra.ExactArgs(1), func(cmd *cobra.Command, c *client.Client, args []string) error {
			text, err := os.ReadFile(args[0])
			if err != nil {
				return err
			}
			k, err := c.AddSSHKey(cmd.Context(), strings.TrimSpace(string(text)))
			if err != nil {
				return err
			}
			return t.print(cmd.OutOrStdout(), k, func(w io.Writer) { row(w, k) })
		}),
		t.api("remove KEY", "Let an SSH key in no more, by the beginning of its id or its fingerprint", cobra.ExactArgs(1), func(cmd *cobra.Command, c *client.Client, args []string) error {
			keys, err := c.SSHKeys(cmd.Context())
			if err != nil {
				return err
			}
			var hits []api.SSHKey
			for _, k := range keys {
				if strings.HasPrefix(k.ID, args[0]) || k.Fingerprint == args[0] {
					hits = append(hits, k)
				}
			}
			if len(hits) != 1 {
				return fmt.Errorf("%d SSH keys begin with %s", len(hits), args[0])
			}
			return c.DeleteSSHKey(cmd.Context(), hits[0].ID)
		}),
	)
	return cmd
}
