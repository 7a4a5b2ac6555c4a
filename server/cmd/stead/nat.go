package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/selfstead/selfstead/nat"
)

// natTable is the table of forwards made by hand. It is not the server's, so
// that neither takes the other's forwards away.
const natTable = "stead-nat"

// errNATFindings makes check exit with a status that is not 0; what it found
// was printed already.
var errNATFindings = errors.New("nat: something keeps forwards from working")

// newNATCommand returns `stead nat`: forwards of this host from a file.
func newNATCommand() *cobra.Command {
	table := natTable
	cmd := &cobra.Command{
		Use:   "nat",
		Short: "Publish ports of inside hosts, hairpin included",
		Args:  cobra.NoArgs,
	}
	cmd.PersistentFlags().StringVar(&table, "table", natTable, "nftables table (family inet) that holds the forwards")

	with := func(fn func(cmd *cobra.Command, c *nat.Controller, args []string) error) func(*cobra.Command, []string) error {
		return func(cmd *cobra.Command, args []string) error {
			cmd.SilenceUsage = true
			c, err := nat.New(nat.Options{Table: table})
			if err != nil {
				return err
			}
			defer c.Close()
			return fn(cmd, c, args)
		}
	}

	cmd.AddCommand(&cobra.Command{
		Use:   "apply FILE",
		Short: "Make the forwards in FILE (JSON, - for standard input) the ones in force",
		Long: "Make the forwards in FILE (JSON, - for standard input) the ones in force.\n\n" +
			"The rules stay when the command ends. What depends on links and bridge ports is\n" +
			"as it was found: after targets moved, apply again; check tells when to.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cmd.SilenceUsage = true
			cfg, err := readForwards(cmd.InOrStdin(), args[0])
			if err != nil {
				return err
			}
			return with(func(cmd *cobra.Command, c *nat.Controller, _ []string) error {
				return c.Apply(cmd.Context(), cfg)
			})(cmd, args)
		},
	})

	asJSON := false
	list := &cobra.Command{
		Use:   "list",
		Short: "List the forwards in force, as the kernel holds them",
		Args:  cobra.NoArgs,
		RunE: with(func(cmd *cobra.Command, c *nat.Controller, _ []string) error {
			forwards, err := c.Forwards(cmd.Context())
			if err != nil {
				return err
			}
			if asJSON {
				enc := json.NewEncoder(cmd.OutOrStdout())
				enc.SetIndent("", "  ")
				return enc.Encode(nat.Config{Forwards: forwards})
			}
			return printForwards(cmd.OutOrStdout(), forwards)
		}),
	}
	list.Flags().BoolVar(&asJSON, "json", false, "print the form that apply reads")
	cmd.AddCommand(list)

	cmd.AddCommand(&cobra.Command{
		Use:   "clear",
		Short: "Remove all forwards and everything that was set up for them",
		Args:  cobra.NoArgs,
		RunE: with(func(cmd *cobra.Command, c *nat.Controller, _ []string) error {
			return c.CleanUp(cmd.Context())
		}),
	})

	cmd.AddCommand(&cobra.Command{
		Use:   "check",
		Short: "Look for what keeps forwards from working: chains of others that drop, forwarding that is off",
		Args:  cobra.NoArgs,
		RunE: with(func(cmd *cobra.Command, c *nat.Controller, _ []string) error {
			findings, err := c.Diagnose(cmd.Context())
			if err != nil {
				return err
			}
			for _, f := range findings {
				fmt.Fprintln(cmd.OutOrStdout(), f)
			}
			if len(findings) > 0 {
				return errNATFindings
			}
			fmt.Fprintln(cmd.OutOrStdout(), "nothing found that keeps forwards from working")
			return nil
		}),
	})
	return cmd
}

// readForwards reads a file of forwards. The error is one line.
func readForwards(stdin io.Reader, name string) (nat.Config, error) {
	if name == "-" {
		return nat.ParseConfig(stdin)
	}
	f, err := os.Open(name)
	if err != nil {
		return nat.Config{}, fmt.Errorf("nat: %w", err)
	}
	defer f.Close()
	cfg, err := nat.ParseConfig(f)
	if err != nil {
		return nat.Config{}, fmt.Errorf("%s: %w", name, err)
	}
	return cfg, nil
}

// printForwards prints one line a forward.
func printForwards(w io.Writer, forwards []nat.Forward) error {
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(tw, "NAME\tSOURCE\tTARGET\tPORTS\tPROTOCOLS\tALLOWED")
	for _, f := range forwards {
		allowed := []string{}
		for _, p := range f.AllowFrom {
			allowed = append(allowed, p.String())
		}
		for _, via := range f.AllowVia {
			allowed = append(allowed, "via "+via)
		}
		if len(allowed) == 0 {
			allowed = append(allowed, "anyone")
		}
		fmt.Fprintf(tw, "%s\t%s\t%s/%d port %d\t%d\t%s\t%s\n", f.Name, f.Source, f.Target.Addr, f.Target.Prefix,
			f.Target.Port, max(f.Count, 1), f.Protocols, strings.Join(allowed, ", "))
	}
	return tw.Flush()
}
