//go:build !cgo || nolxc

package lxcrt

import (
	"errors"
	"os"
	"strings"
	"testing"
)

// TestWithoutLiblxc: the package builds without cgo and says what is missing.
func TestWithoutLiblxc(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Log("without root, that is what is missing first")
	}
	_, err := New(t.Context(), Options{Dir: t.TempDir(), CgroupParent: "x", LinkPrefix: "x", Table: "x"})
	if !errors.Is(err, ErrNotSupported) || !strings.Contains(err.Error(), "liblxc") {
		t.Errorf("got %v", err)
	}
}
