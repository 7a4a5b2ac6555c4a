package lxcrt_test

import (
	"os"
	"strings"
	"testing"

	"github.com/selfstead/selfstead/lxcrt/lxcrttest"
)

// TestExpected holds what the runtime found out about a machine against what
// VM_EXPECT says of it, so that the suite passes there by the way that it is run
// there for, and not by another.
func TestExpected(t *testing.T) {
	lxcrttest.Need(t)
	f := lxcrttest.NewLab(t).Features()
	t.Logf("%+v", f)
	for _, e := range strings.FieldsFunc(os.Getenv("VM_EXPECT"), func(r rune) bool { return r == ',' }) {
		switch e {
		case "cgroup2":
			if !f.UnifiedCgroup {
				t.Error("cgroup v2 is there and not used")
			}
		case "apparmor":
			if !f.AppArmor {
				t.Error("AppArmor is there and not seen")
			}
		case "psi":
			if !f.Pressure {
				t.Error("pressure is there and not read")
			}
		case "linux6.1":
			if f.MappedImages {
				t.Error("squashfs is id-mapped, which Linux 6.1 cannot")
			}
		}
	}
}
