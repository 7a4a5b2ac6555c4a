package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/selfstead/selfstead/server/client"
	"github.com/selfstead/selfstead/server/daemon"
)

// defaultDir is the state folder when none is named.
const defaultDir = "/var/lib/selfstead"

// target is the server that a command speaks to, and how it prints.
type target struct {
	dir     string
	context string
	json    bool
}

// bind adds the flags that choose the server to a command and those below it.
func (t *target) bind(cmd *cobra.Command) {
	f := cmd.PersistentFlags()
	f.StringVar(&t.dir, "dir", "", "state folder of a server on this machine (default $STEAD_DIR, the current context, or "+defaultDir+")")
	f.StringVar(&t.context, "context", "", "name of a server that was signed in to (default $STEAD_CONTEXT, or the current one)")
	f.BoolVar(&t.json, "json", false, "print JSON for programs")
}

// client connects: to the folder's socket where one is named, else to the
// context, else to the default folder.
func (t *target) client() (*client.Client, error) {
	dir := t.dir
	name := t.context
	if dir == "" && name == "" {
		dir, name = os.Getenv("STEAD_DIR"), os.Getenv("STEAD_CONTEXT")
	}
	if dir == "" {
		book, err := readContexts()
		if err != nil {
			return nil, err
		}
		if name == "" {
			name = book.Current
		}
		if name != "" {
			c, ok := book.Contexts[name]
			if !ok {
				return nil, fmt.Errorf("there is no context %s; stead login makes one", name)
			}
			return c.client()
		}
		dir = defaultDir
	}
	socket := daemon.SocketPath(dir)
	if _, err := os.Stat(socket); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("no server runs in %s (stead serve --dir %s starts one, --dir names another folder, stead login a server elsewhere)", dir, dir)
		}
		return nil, err
	}
	return client.New(client.Options{Socket: socket, UserAgent: "stead/" + version()})
}

// contexts is the file of servers that were signed in to.
type contexts struct {
	Current  string                   `json:"current"`
	Contexts map[string]serverContext `json:"contexts"`
}

// serverContext is one of them.
type serverContext struct {
	URL    string `json:"url"`
	Token  string `json:"token"`
	RootCA string `json:"rootCa,omitempty"` // PEM
}

func (c serverContext) client() (*client.Client, error) {
	o := client.Options{URL: c.URL, Token: c.Token, UserAgent: "stead/" + version()}
	if c.RootCA != "" {
		o.RootCA = []byte(c.RootCA)
	}
	return client.New(o)
}

func contextsFile() (string, error) {
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, "stead", "contexts.json"), nil
}

func readContexts() (contexts, error) {
	book := contexts{Contexts: map[string]serverContext{}}
	path, err := contextsFile()
	if err != nil {
		return book, nil //nolint:nilerr // no home: there are no contexts
	}
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return book, nil
	}
	if err != nil {
		return book, err
	}
	if err := json.Unmarshal(text, &book); err != nil {
		return book, fmt.Errorf("%s: %w", path, err)
	}
	if book.Contexts == nil {
		book.Contexts = map[string]serverContext{}
	}
	return book, nil
}

// write replaces the file; it holds tokens, so only its owner can read it.
func (b contexts) write() error {
	path, err := contextsFile()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	text, err := json.MarshalIndent(b, "", "  ")
	if err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".contexts-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(append(text, '\n'))
	if err = errors.Join(err, tmp.Close()); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}
