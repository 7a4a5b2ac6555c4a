package lxcrt_test

import (
	"testing"

	"github.com/selfstead/selfstead/lxcrt/lxcrttest"
)

func TestConform(t *testing.T) {
	lxcrttest.Need(t, "busybox", "mksquashfs", "nft", "ip")
	lxcrttest.Conform(t, func(t testing.TB) lxcrttest.Subject { return lxcrttest.NewLab(t) })
}
