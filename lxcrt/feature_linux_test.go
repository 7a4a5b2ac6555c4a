package lxcrt

import (
	"os"
	"runtime"
	"testing"
)

// TestHeldWithoutCode: where there is no hand-made idle program for the
// processor, the child is held by tracing it.
func TestHeldWithoutCode(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("missing here, where nothing may be: root")
		}
		t.Skip("missing: root")
	}
	if _, err := idleProgram(); err != nil { // the other tests' is the one with code
		t.Fatal(err)
	}
	code := idleCode[runtime.GOARCH]
	delete(idleCode, runtime.GOARCH)
	defer func() { idleCode[runtime.GOARCH] = code }()
	ns, err := idmapNamespace([]extent{{0, 100000, 65536}})
	if err != nil {
		t.Fatal(err)
	}
	ns.Close()
}

func TestAllow(t *testing.T) {
	for _, c := range []struct {
		f    Features
		l    Limits
		want bool
	}{
		{Features{}, Limits{Memory: 1, Swap: 1, IO: IOLimits{Weight: 10}}, true},
		{Features{}, Limits{IO: IOLimits{ReadOps: 1}}, false},
		{Features{IOLimit: true}, Limits{IO: IOLimits{ReadOps: 1}}, true},
	} {
		if err := c.f.allow(c.l); (err == nil) != c.want {
			t.Errorf("%+v with %+v: %v", c.l, c.f, err)
		}
	}
}
