package service

import (
	"encoding/base32"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// layout is where things stand below the server's folder.
type layout string

func (l layout) packages() string            { return filepath.Join(string(l), "packages") }
func (l layout) uploads() string             { return filepath.Join(string(l), "uploads") }
func (l layout) volumes() string             { return filepath.Join(string(l), "volumes") }
func (l layout) logs() string                { return filepath.Join(string(l), "logs") }
func (l layout) containers() string          { return filepath.Join(string(l), "containers") }
func (l layout) archive(name string) string  { return filepath.Join(l.packages(), name) }
func (l layout) data(pkg string) string      { return filepath.Join(l.volumes(), pkg, "data") }
func (l layout) log(pkg string) string       { return filepath.Join(l.logs(), pkg) }
func (l layout) container(g string) string   { return filepath.Join(l.containers(), g) }
func (l layout) rpc(guid string) string      { return filepath.Join(l.container(guid), "rpc") }
func (l layout) sub(guid, sub string) string { return filepath.Join(l.container(guid), "sub", sub) }

// make creates the folders that are always there.
func (l layout) make() error {
	for _, dir := range []string{l.packages(), l.uploads(), l.volumes(), l.logs(), l.containers()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("service: %w", err)
		}
	}
	return nil
}

// archiveName is the file name of an installed archive: its root hash.
func archiveName(hash []byte) string {
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(hash)) + ".s9pk"
}

// volume makes the folder of one volume; its ids are the container's view.
func (l layout) volume(pkg, volume string) (string, error) {
	dir := filepath.Join(l.data(pkg), volume)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("service: volume %s of %s: %w", volume, pkg, err)
	}
	return dir, nil
}

// removePackage removes what a package has on disk; volumes and logs only
// when data is set.
func (l layout) removePackage(pkg, archive string, data bool) error {
	var errs []error
	if archive != "" && filepath.Base(archive) == archive {
		if err := os.Remove(l.archive(archive)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	if data {
		errs = append(errs, os.RemoveAll(filepath.Join(l.volumes(), pkg)), os.RemoveAll(l.log(pkg)))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("service: files of %s: %w", pkg, err)
	}
	return nil
}

// sweep removes from dir every name that keep does not know.
func sweep(dir string, keep func(name string) bool) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("service: %w", err)
	}
	var errs []error
	for _, e := range entries {
		if !keep(e.Name()) {
			errs = append(errs, os.RemoveAll(filepath.Join(dir, e.Name())))
		}
	}
	return errors.Join(errs...)
}

// syncDir makes names in a folder durable.
func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}
