package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/selfstead/selfstead/server/api"
	"github.com/selfstead/selfstead/server/client"
)

// smtpCommand is `stead system smtp`: the outgoing mail server that services may
// use.
func (t *target) smtpCommand() *cobra.Command {
	show := func(cmd *cobra.Command, s api.SMTP, err error) error {
		if err != nil {
			return err
		}
		return t.print(cmd.OutOrStdout(), s, func(w io.Writer) {
			password := "no"
			if s.PasswordSet {
				password = "yes"
			}
			table(w, []string{"host", "port", "security", "from", "username", "password"},
				[]string{s.Host, fmt.Sprint(s.Port), s.Security, s.From, s.Username, password})
		})
	}
	cmd := t.api("smtp", "Show the outgoing mail server that services may use", cobra.NoArgs, func(cmd *cobra.Command, c *client.Client, _ []string) error {
		s, err := c.SMTP(cmd.Context())
		return show(cmd, s, err)
	})
	var in api.SMTPChange
	ask := false
	set := t.api("set", "Set it; with --password the password is asked for, or read from standard input", cobra.NoArgs, func(cmd *cobra.Command, c *client.Client, _ []string) error {
		if ask {
			password, err := newAsker(cmd).password("Password of " + in.Username + ": ")
			if err != nil {
				return err
			}
			in.Password = &password
		}
		s, err := c.SetSMTP(cmd.Context(), in)
		return show(cmd, s, err)
	})
	set.Flags().StringVar(&in.Host, "host", "", "name of the mail server")
	set.Flags().Uint16Var(&in.Port, "port", 587, "its port")
	set.Flags().StringVar(&in.From, "from", "", "sender of the mail")
	set.Flags().StringVar(&in.Username, "username", "", "user name there")
	set.Flags().StringVar(&in.Security, "security", "starttls", "starttls, or tls from the first byte")
	set.Flags().BoolVar(&ask, "password", false, "ask for a password; without, the one that is set stays")
	cmd.AddCommand(set, t.api("clear", "Have no outgoing mail server", cobra.NoArgs, func(cmd *cobra.Command, c *client.Client, _ []string) error {
		return c.DeleteSMTP(cmd.Context())
	}))
	to := ""
	test := t.api("test", "Send one mail to try it", cobra.NoArgs, func(cmd *cobra.Command, c *client.Client, _ []string) error {
		return c.TestSMTP(cmd.Context(), api.SMTPTest{To: to})
	})
	test.Flags().StringVar(&to, "to", "", "who gets it")
	test.MarkFlagRequired("to") //nolint:errcheck // the flag is there
	cmd.AddCommand(test)
	return cmd
}
