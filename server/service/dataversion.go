package service

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// maxDataVersion bounds the text of a data version, which may be a range.
const maxDataVersion = 16 << 10

// dataVersion reads what version the data on a package's volumes has; nil
// when nothing says so.
func (l layout) dataVersion(pkg string) (*string, error) {
	root, err := os.OpenRoot(l.data(pkg))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("service: data version: %w", err)
	}
	defer root.Close()
	f, err := root.Open(".version")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("service: data version: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxDataVersion))
	if err != nil {
		return nil, fmt.Errorf("service: data version: %w", err)
	}
	version := strings.TrimSpace(string(text))
	return &version, nil
}

// setDataVersion replaces the data version, whole or not at all; nil removes
// it.
func (l layout) setDataVersion(pkg string, version *string) error {
	if version != nil && len(*version) > maxDataVersion {
		return fmt.Errorf("service: data version of %d bytes, at most %d", len(*version), maxDataVersion)
	}
	if err := os.MkdirAll(l.data(pkg), 0o755); err != nil {
		return fmt.Errorf("service: data version: %w", err)
	}
	root, err := os.OpenRoot(l.data(pkg))
	if err != nil {
		return fmt.Errorf("service: data version: %w", err)
	}
	defer root.Close()
	if version == nil {
		if err := root.Remove(".version"); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("service: data version: %w", err)
		}
		return syncDir(l.data(pkg))
	}
	err = func() error {
		f, err := root.OpenFile(".version.new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
		if err != nil {
			return err
		}
		_, err = f.WriteString(*version)
		if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
			return err
		}
		return root.Rename(".version.new", ".version")
	}()
	if err != nil {
		return fmt.Errorf("service: data version: %w", err)
	}
	return syncDir(filepath.Join(l.data(pkg)))
}
