package main

import (
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/selfstead/selfstead/s9pk"
)

// defaultKeyPath is where the key lies that signs packages unless told otherwise.
func defaultKeyPath() (string, error) {
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", fmt.Errorf("no folder for the key: %w; name one with --key", err)
	}
	return filepath.Join(dir, "selfstead", "key.pem"), nil
}

// keyFlag adds --key.
func keyFlag(cmd *cobra.Command) *string {
	return cmd.Flags().String("key", "", "`FILE` with the signing key (PKCS#8 PEM); by default key.pem in selfstead's configuration folder, made when it is missing")
}

// signingKey reads the key at path. The default one is made when it is not there,
// and says so on w.
func signingKey(path string, w io.Writer) (ed25519.PrivateKey, error) {
	if path != "" {
		return readKey(path)
	}
	path, err := defaultKeyPath()
	if err != nil {
		return nil, err
	}
	key, err := readKey(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	if key, err = createKey(path); err != nil {
		return nil, err
	}
	fmt.Fprintf(w, "made a new signing key: %s\nkeep a copy: with another key, your packages come from somebody else\n", path)
	return key, nil
}

func readKey(path string) (ed25519.PrivateKey, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("signing key: %w", err)
	}
	key, err := s9pk.ParsePrivateKey(text)
	if err != nil {
		return nil, fmt.Errorf("signing key %s: %w", path, err)
	}
	return key, nil
}

// createKey makes a key file that only its owner can read; one that exists is
// left alone.
func createKey(path string) (ed25519.PrivateKey, error) {
	key, err := s9pk.GenerateKey()
	if err != nil {
		return nil, fmt.Errorf("signing key: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("signing key: %w", err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, fmt.Errorf("signing key: %w", err)
	}
	_, err = f.Write(s9pk.MarshalPrivateKey(key))
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, errors.Join(fmt.Errorf("signing key: %w", err), os.Remove(path))
	}
	return key, nil
}

func newKeyCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "key", Short: "Make and show the key that signs packages", Args: cobra.NoArgs}
	cmd.AddCommand(newKeyNewCommand(), newKeyShowCommand())
	return cmd
}

func newKeyNewCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "new [FILE]",
		Short: "Make a signing key; a file that exists is left alone",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			path, err := keyPath(args)
			if err != nil {
				return err
			}
			key, err := createKey(path)
			if err != nil {
				return err
			}
			if !asJSON {
				fmt.Fprintln(cmd.ErrOrStderr(), "made", path)
			}
			return showKey(cmd.OutOrStdout(), path, key, asJSON)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func newKeyShowCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "show [FILE]",
		Short: "Show the public key of a signing key",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			path, err := keyPath(args)
			if err != nil {
				return err
			}
			key, err := readKey(path)
			if err != nil {
				return err
			}
			return showKey(cmd.OutOrStdout(), path, key, asJSON)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func keyPath(args []string) (string, error) {
	if len(args) > 0 {
		return args[0], nil
	}
	return defaultKeyPath()
}

func showKey(w io.Writer, path string, key ed25519.PrivateKey, asJSON bool) error {
	pub, err := s9pk.PublicKey(key)
	if err != nil {
		return err
	}
	text := string(s9pk.MarshalPublicKey(pub))
	if asJSON {
		return printJSON(w, map[string]string{"file": path, "publicKey": text, "signer": hex.EncodeToString(pub)})
	}
	_, err = io.WriteString(w, text)
	return err
}
