package lxcrt_test

import (
	"errors"
	"testing"

	"github.com/selfstead/selfstead/lxcrt"
	"github.com/selfstead/selfstead/lxcrt/lxcrttest"
)

// TestSuiteWithout runs the suite's parts that depend on something a kernel may
// lack as if it did.
func TestSuiteWithout(t *testing.T) {
	for _, c := range []struct {
		what  string
		take  func(*lxcrt.Features)
		parts []string
	}{
		{"swap accounting", func(f *lxcrt.Features) { f.SwapLimit = false }, []string{"changed limits"}},
		{"limits and weights of I/O", func(f *lxcrt.Features) { f.IOLimit, f.IOWeight = false, false }, []string{"life", "changed limits"}},
		{"id-mapped squashfs", func(f *lxcrt.Features) { f.MappedImages = false }, []string{"inside"}},
	} {
		t.Run(c.what, func(t *testing.T) {
			*lxcrt.ProbeHook = c.take
			defer func() { *lxcrt.ProbeHook = nil }()
			lxcrttest.Run(t, lxcrttest.NewLab, c.parts...)
		})
	}
	t.Run("refused", func(t *testing.T) {
		*lxcrt.ProbeHook = func(f *lxcrt.Features) { f.IOLimit = false }
		defer func() { *lxcrt.ProbeHook = nil }()
		lab := lxcrttest.NewLab(t)
		s := lab.Spec("")
		s.Limits.IO.ReadBytes = 1 << 20
		if _, err := lab.Create(t.Context(), s); !errors.Is(err, lxcrt.ErrNotSupported) {
			t.Errorf("got %v", err)
		}
	})
}
