package lxcrt_test

import (
	"testing"

	"github.com/selfstead/selfstead/lxcrt"
	"github.com/selfstead/selfstead/lxcrt/lxcrttest"
)

func TestSuite(t *testing.T) { lxcrttest.Run(t, lxcrttest.NewLab) }

// TestSuiteUnpacked runs what has to do with images as on a kernel that cannot
// id-map squashfs.
func TestSuiteUnpacked(t *testing.T) {
	lxcrttest.Run(t, func(t testing.TB, edit ...func(*lxcrt.Options)) *lxcrttest.Lab {
		return lxcrttest.NewLab(t, append(edit, func(o *lxcrt.Options) { o.UnpackImages = true })...)
	}, "life", "inside", "mounts", "mounts of the start", "composed ids", "adoption")
}
