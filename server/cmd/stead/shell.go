package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"

	"github.com/coder/websocket"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/selfstead/selfstead/server/api"
	"github.com/selfstead/selfstead/server/client"
)

// shellCommand is `stead packages shell`.
func (t *target) shellCommand() *cobra.Command {
	var o api.ShellOptions
	cmd := t.api("shell ID [COMMAND...]", "Open a terminal inside a running package", cobra.MinimumNArgs(1), func(cmd *cobra.Command, c *client.Client, args []string) error {
		o.Command, o.Rows, o.Cols, o.Term = args[1:], 24, 80, os.Getenv("TERM")
		in, isFile := cmd.InOrStdin().(*os.File)
		interactive := isFile && term.IsTerminal(int(in.Fd()))
		if interactive {
			if cols, rows, err := term.GetSize(int(in.Fd())); err == nil && rows > 0 && cols > 0 {
				o.Rows, o.Cols = uint16(rows), uint16(cols)
			}
		}
		conn, err := c.Shell(cmd.Context(), args[0], o)
		if err != nil {
			return err
		}
		defer conn.CloseNow() //nolint:errcheck // it may be closed
		ctx, cancel := context.WithCancel(cmd.Context())
		defer cancel()
		if interactive {
			before, err := term.MakeRaw(int(in.Fd()))
			if err != nil {
				return err
			}
			defer func() { _ = term.Restore(int(in.Fd()), before) }()
			go resize(ctx, conn, in)
		}
		go send(ctx, conn, cmd.InOrStdin())
		return receive(ctx, conn, cmd.OutOrStdout())
	})
	cmd.Flags().SetInterspersed(false)
	cmd.Flags().StringVarP(&o.User, "user", "u", "", "user[:group] inside")
	cmd.Flags().StringVar(&o.Subcontainer, "subcontainer", "", "one of the package's subcontainers instead of its own container")
	return cmd
}

// resize tells the server of each change of our window.
func resize(ctx context.Context, conn *websocket.Conn, in *os.File) {
	changed := make(chan os.Signal, 1)
	signal.Notify(changed, unix.SIGWINCH)
	defer signal.Stop(changed)
	for {
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
		if cols, rows, err := term.GetSize(int(in.Fd())); err == nil {
			text, _ := json.Marshal(api.ShellMessage{Resize: &api.ShellSize{Rows: uint16(rows), Cols: uint16(cols)}}) // it always can
			_ = conn.Write(ctx, websocket.MessageText, text)                                                          // its end shows elsewhere
		}
	}
}

// send carries what is typed; at the end of a file it sends what ends input in a
// terminal.
func send(ctx context.Context, conn *websocket.Conn, in io.Reader) {
	buf := make([]byte, 4096)
	for {
		n, err := in.Read(buf)
		if n > 0 && conn.Write(ctx, websocket.MessageBinary, buf[:n]) != nil {
			return
		}
		if err != nil {
			_ = conn.Write(ctx, websocket.MessageBinary, []byte{4})
			return
		}
	}
}

// receive shows what comes, until the program's end; its exit status becomes
// ours.
func receive(ctx context.Context, conn *websocket.Conn, out io.Writer) error {
	for {
		kind, data, err := conn.Read(ctx)
		if err != nil {
			return fmt.Errorf("the terminal broke off: %w", err)
		}
		if kind == websocket.MessageBinary {
			if _, err := out.Write(data); err != nil {
				return err
			}
			continue
		}
		var m api.ShellMessage
		if err := json.Unmarshal(data, &m); err != nil {
			return err
		}
		switch {
		case m.Problem != "":
			return errors.New(m.Problem)
		case m.Exit == nil:
		case m.Exit.Signal != 0:
			return &silentExit{128 + m.Exit.Signal}
		case m.Exit.Code != 0:
			return &silentExit{m.Exit.Code}
		default:
			return nil
		}
	}
}

// silentExit is an exit status that is passed on without a word.
type silentExit struct{ code int }

func (e *silentExit) Error() string { return "" }
func (e *silentExit) ExitCode() int { return e.code }
