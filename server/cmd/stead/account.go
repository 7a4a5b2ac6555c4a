package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/selfstead/selfstead/server/api"
	"github.com/selfstead/selfstead/server/client"
)

// newClaimCommand is `stead claim`.
func newClaimCommand() *cobra.Command {
	t := &target{}
	var code string
	cmd := t.api("claim", "Become the owner of a new server", cobra.NoArgs, func(cmd *cobra.Command, c *client.Client, _ []string) error {
		if code == "" && t.dir != "" {
			if text, err := os.ReadFile(filepath.Join(t.dir, "claim-code")); err == nil {
				code = strings.TrimSpace(string(text))
			}
		}
		ask := newAsker(cmd)
		var err error
		if code == "" {
			if code, err = ask.line("Claim code: "); err != nil {
				return err
			}
		}
		password, err := ask.newPassword()
		if err != nil {
			return err
		}
		if err := c.Claim(cmd.Context(), code, password); err != nil {
			return err
		}
		fmt.Fprintln(cmd.OutOrStdout(), "The server is yours.")
		return nil
	})
	t.bind(cmd)
	cmd.Flags().StringVar(&code, "code", "", "the one-time code from the server's console (with --dir it is read from the folder)")
	return cmd
}

// newLoginCommand is `stead login`.
func newLoginCommand() *cobra.Command {
	var name, fingerprint string
	cmd := &cobra.Command{Use: "login URL", Short: "Sign in to a server elsewhere and make it the current one", Args: cobra.ExactArgs(1),
		Long: `Sign in to a server elsewhere and make it the current one.

A server that speaks TLS by its own certificate is trusted once its fingerprint
was compared with the one on its console; --fingerprint gives it beforehand.`}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ask := newAsker(cmd)
		sc := serverContext{URL: strings.TrimRight(args[0], "/")}
		u, err := url.Parse(sc.URL)
		if err != nil || u.Host == "" {
			return fmt.Errorf("%q is not a URL such as https://192.0.2.7:8443", args[0])
		}
		if u.Scheme == "https" {
			if sc.RootCA, err = trust(cmd.Context(), ask, sc.URL, fingerprint); err != nil {
				return err
			}
		}
		c, err := sc.client()
		if err != nil {
			return err
		}
		defer c.Close()
		password, err := ask.password("Password: ")
		if err != nil {
			return err
		}
		session, err := c.SignIn(cmd.Context(), api.SignIn{Password: password, Name: "stead on " + hostname()})
		if err != nil {
			return err
		}
		sc.Token = session.Token
		book, err := readContexts()
		if err != nil {
			return err
		}
		if name == "" {
			name = u.Host
		}
		book.Contexts[name], book.Current = sc, name
		if err := book.write(); err != nil {
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), "Signed in; %s is the current server.\n", name)
		return nil
	}
	cmd.Flags().StringVar(&name, "name", "", "name of the context (default: the URL's host)")
	cmd.Flags().StringVar(&fingerprint, "fingerprint", "", "SHA-256 fingerprint of the server's root certificate")
	return cmd
}

// trust returns the root certificate to trust for a server; "" where the
// system's own will do.
func trust(ctx context.Context, ask *asker, server, fingerprint string) (string, error) {
	if fingerprint == "" {
		c, err := client.New(client.Options{URL: server})
		if err != nil {
			return "", err
		}
		defer c.Close()
		if _, err := c.Mode(ctx); err == nil {
			return "", nil
		}
	}
	root, found, err := client.FetchRoot(ctx, server)
	if err != nil {
		return "", err
	}
	if fingerprint != "" {
		if !strings.EqualFold(strings.ReplaceAll(fingerprint, ":", ""), strings.ReplaceAll(found, ":", "")) {
			return "", fmt.Errorf("the server's root certificate has the fingerprint %s, not the one given", found)
		}
		return string(root), nil
	}
	answer, err := ask.line("The server's root certificate has the fingerprint\n  " + found + "\nIs it the one on the server's console? [y/N] ")
	if err != nil {
		return "", err
	}
	if !strings.EqualFold(answer, "y") && !strings.EqualFold(answer, "yes") {
		return "", errors.New("not trusted")
	}
	return string(root), nil
}

// newLogoutCommand is `stead logout`.
func newLogoutCommand() *cobra.Command {
	return &cobra.Command{Use: "logout [NAME]", Short: "Sign out of the current server, or of a named one", Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			book, err := readContexts()
			if err != nil {
				return err
			}
			name := book.Current
			if len(args) == 1 {
				name = args[0]
			}
			sc, ok := book.Contexts[name]
			if !ok {
				return fmt.Errorf("there is no context %q", name)
			}
			c, err := sc.client()
			if err != nil {
				return err
			}
			defer c.Close()
			if err := c.SignOut(cmd.Context()); err != nil {
				fmt.Fprintln(cmd.ErrOrStderr(), "the server did not end the session: "+explain(err))
			}
			delete(book.Contexts, name)
			if book.Current == name {
				book.Current = ""
			}
			return book.write()
		}}
}

// newContextsCommand is `stead contexts`.
func newContextsCommand() *cobra.Command {
	asJSON := false
	cmd := &cobra.Command{Use: "contexts", Short: "List the servers that were signed in to", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			book, err := readContexts()
			if err != nil {
				return err
			}
			rows := [][]string{{"", "name", "url"}}
			list := []map[string]any{}
			for _, name := range slices.Sorted(maps.Keys(book.Contexts)) {
				mark := ""
				if name == book.Current {
					mark = "*"
				}
				rows = append(rows, []string{mark, name, book.Contexts[name].URL})
				list = append(list, map[string]any{"name": name, "url": book.Contexts[name].URL, "current": name == book.Current})
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), list)
			}
			table(cmd.OutOrStdout(), rows...)
			return nil
		}}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON for programs")
	cmd.AddCommand(&cobra.Command{Use: "use NAME", Short: "Make a server the current one; - for none", Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			book, err := readContexts()
			if err != nil {
				return err
			}
			if _, ok := book.Contexts[args[0]]; !ok && args[0] != "-" {
				return fmt.Errorf("there is no context %s", args[0])
			}
			book.Current = strings.TrimPrefix(args[0], "-")
			return book.write()
		}})
	return cmd
}

// newPasswordCommand is `stead password`.
func newPasswordCommand() *cobra.Command {
	t := &target{}
	cmd := t.api("password", "Change the owner's password; every other session ends", cobra.NoArgs, func(cmd *cobra.Command, c *client.Client, _ []string) error {
		ask := newAsker(cmd)
		var in api.PasswordChange
		var err error
		if c.Base() != "http://socket" {
			if in.OldPassword, err = ask.password("Old password: "); err != nil {
				return err
			}
		}
		if in.NewPassword, err = ask.newPassword(); err != nil {
			return err
		}
		return c.ChangePassword(cmd.Context(), in)
	})
	t.bind(cmd)
	return cmd
}

// newSessionsCommand is `stead sessions`.
func newSessionsCommand() *cobra.Command {
	t := &target{}
	cmd := t.api("sessions", "List who is signed in", cobra.NoArgs, func(cmd *cobra.Command, c *client.Client, _ []string) error {
		list, err := c.Sessions(cmd.Context())
		if err != nil {
			return err
		}
		return t.print(cmd.OutOrStdout(), list, func(w io.Writer) {
			rows := [][]string{{"id", "name", "signed in", "last active"}}
			for _, s := range list {
				rows = append(rows, []string{s.ID, s.Name, ago(s.LoggedIn), ago(s.LastActive)})
			}
			table(w, rows...)
		})
	})
	t.bind(cmd)
	cmd.AddCommand(t.api("revoke ID", "End a session and its streams", cobra.ExactArgs(1), func(cmd *cobra.Command, c *client.Client, args []string) error {
		return c.RevokeSession(cmd.Context(), args[0])
	}))
	return cmd
}

func hostname() string {
	name, err := os.Hostname()
	if err != nil {
		return "somewhere"
	}
	return name
}

// asker asks the person, or reads lines where there is none.
type asker struct {
	in   *bufio.Reader
	fd   int // of a terminal, else -1
	errw io.Writer
}

func newAsker(cmd *cobra.Command) *asker {
	a := &asker{in: bufio.NewReader(cmd.InOrStdin()), fd: -1, errw: cmd.ErrOrStderr()}
	if f, ok := cmd.InOrStdin().(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		a.fd = int(f.Fd())
	}
	return a
}

func (a *asker) line(prompt string) (string, error) {
	if a.fd >= 0 {
		fmt.Fprint(a.errw, prompt)
	}
	text, err := a.in.ReadString('\n')
	if err != nil && (text == "" || !errors.Is(err, io.EOF)) {
		return "", fmt.Errorf("nothing was answered: %w", err)
	}
	return strings.TrimRight(text, "\r\n"), nil
}

// password reads without an echo.
func (a *asker) password(prompt string) (string, error) {
	if a.fd < 0 {
		return a.line(prompt)
	}
	fmt.Fprint(a.errw, prompt)
	text, err := term.ReadPassword(a.fd)
	fmt.Fprintln(a.errw)
	return string(text), err
}

func (a *asker) newPassword() (string, error) {
	first, err := a.password("New password (at least 8 characters): ")
	if err != nil || a.fd < 0 {
		return first, err
	}
	second, err := a.password("Once more: ")
	if err == nil && first != second {
		err = errors.New("the two differ")
	}
	return first, err
}
