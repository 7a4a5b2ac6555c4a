package embedded

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/selfstead/selfstead/lxcrt/guest/node"
)

//go:embed all:dist
var dist embed.FS

// ErrNotBuilt is returned by a program that was built without make, which puts
// the in-container program into it.
var ErrNotBuilt = errors.New("embedded: this program was built without its in-container part; run make build")

type entry struct {
	path string
	mode fs.FileMode
	data []byte // nil is a folder
	link string // target of a symbolic link
}

func entries() ([]entry, error) {
	guest, err := dist.ReadFile("dist/start-container")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNotBuilt
	}
	if err != nil {
		return nil, err
	}
	list := []entry{
		{path: "usr/bin/start-container", mode: 0o755, data: guest},
		{path: "usr/bin/start-cli", link: "start-container"},
		{path: "usr/lib/startos/init/index.js", mode: 0o644, data: node.Script},
	}
	for _, dir := range []string{
		"usr/lib/startos/package", "media/startos/volumes", "media/startos/assets", "media/startos/images",
		"media/startos/rpc", "media/startos/subcontainers", "media/startos/backup", "run/selfstead/log",
	} {
		list = append(list, entry{path: dir, mode: 0o755})
	}
	return list, nil
}

// Layer writes the layer below dir, in a folder named by its content, and
// returns that folder. A folder that is complete is used as it is; others, of
// earlier versions, are removed unless keep wants them.
func Layer(dir string, keep func(name string) bool) (string, error) {
	list, err := entries()
	if err != nil {
		return "", err
	}
	sum := sha256.New()
	for _, e := range list {
		fmt.Fprintf(sum, "%s %o %d %s\n", e.path, e.mode, len(e.data), e.link)
		sum.Write(e.data)
	}
	name := hex.EncodeToString(sum.Sum(nil))[:32]
	final := filepath.Join(dir, name)
	if _, err := os.Stat(final); err == nil {
		return final, prune(dir, name, keep)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("embedded: %w", err)
	}
	part, err := os.MkdirTemp(dir, ".part-")
	if err != nil {
		return "", fmt.Errorf("embedded: %w", err)
	}
	if err := write(part, list); err != nil {
		os.RemoveAll(part)
		return "", fmt.Errorf("embedded: guest layer: %w", err)
	}
	if err := os.Rename(part, final); err != nil {
		os.RemoveAll(part)
		if _, there := os.Stat(final); there != nil {
			return "", fmt.Errorf("embedded: %w", err)
		}
	}
	return final, prune(dir, name, keep)
}

// write makes the tree; every folder is 0755 and every file is on disk before
// the tree gets its name.
func write(root string, list []entry) error {
	if err := os.Chmod(root, 0o755); err != nil {
		return err
	}
	for _, e := range list {
		path := filepath.Join(root, e.path)
		switch {
		case e.link != "":
			if err := os.Symlink(e.link, path); err != nil {
				return err
			}
		case e.data == nil:
			if err := os.MkdirAll(path, 0o755); err != nil {
				return err
			}
		default:
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				return err
			}
			if err := writeFile(path, e); err != nil {
				return err
			}
		}
	}
	// The umask may have taken bits from the folders.
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			err = os.Chmod(path, 0o755)
		}
		return err
	})
}

func writeFile(path string, e entry) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, e.mode)
	if err != nil {
		return err
	}
	_, err = f.Write(e.data)
	return errors.Join(err, f.Chmod(e.mode), f.Sync(), f.Close())
}

// prune removes layers of other versions and unfinished ones.
func prune(dir, current string, keep func(string) bool) error {
	list, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("embedded: %w", err)
	}
	for _, d := range list {
		if d.Name() == current || keep != nil && keep(d.Name()) {
			continue
		}
		if err := os.RemoveAll(filepath.Join(dir, d.Name())); err != nil {
			return fmt.Errorf("embedded: %w", err)
		}
	}
	return nil
}
