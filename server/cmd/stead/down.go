package main

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/spf13/cobra"

	"github.com/selfstead/selfstead/server/client"
	"github.com/selfstead/selfstead/server/daemon"
)

// newDownCommand is `stead down`.
func newDownCommand() *cobra.Command {
	dir, keep := "", false
	cmd := &cobra.Command{
		Use: "down", Short: "Stop the server of a folder, and its services", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := client.New(client.Options{Socket: daemon.SocketPath(dir)})
			if err != nil {
				return err
			}
			defer c.Close()
			action := daemon.Shutdown
			if keep {
				action = daemon.HandOver
			}
			if err := c.Power(cmd.Context(), action); err != nil {
				if errors.Is(err, fs.ErrNotExist) || isRefused(err) {
					return fmt.Errorf("no server runs in %s", dir)
				}
				return err
			}
			return daemon.WaitEnd(cmd.Context(), dir)
		},
	}
	cmd.Flags().StringVar(&dir, "dir", defaultDir, "state folder of the server")
	cmd.Flags().BoolVar(&keep, "keep-services", false, "services go on, and the next start takes them over")
	return cmd
}
