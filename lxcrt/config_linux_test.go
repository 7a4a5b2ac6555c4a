package lxcrt

import (
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/selfstead/selfstead/lxcrt/internal/liblxc"
)

var update = flag.Bool("update", false, "rewrite golden files")

func goldenSpec() Spec {
	return Spec{
		Name: "WEB", Layers: []Layer{{Path: "/images/base.squashfs"}}, IDs: IDRange{Base: 1000000, Count: 65536},
		Addr4: netip.MustParseAddr("10.0.0.2"), Init: []string{"/sbin/init"},
		Env:    []string{"LANG=C.UTF-8", "TRAILING=blank ", `QUOTED="x"`},
		Limits: Limits{Memory: 1 << 30, Swap: 1 << 20, CPUWeight: 50, CPUQuota: 1.5, PIDs: 512},
	}
}

func TestConfigGolden(t *testing.T) {
	for name, h := range map[string]host{
		"hybrid":  {dir: "/var/lib/x", parent: "x-1", hook: "HOOK", swap: true},
		"unified": {dir: "/var/lib/x", parent: "x-1", hook: "HOOK", cgroup2: true, swap: true, apparmor: "lxcrt-x"},
	} {
		items := h.config(goldenSpec())
		got := liblxc.Render(items)
		file := filepath.Join("testdata", "config-"+name+".golden")
		if *update {
			if err := os.MkdirAll("testdata", 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if got != string(want) {
			t.Errorf("%s: got\n%s\nwant\n%s", name, got, want)
		}
		// liblxc takes every key that is not bound to the machine.
		if liblxc.Supported && os.Geteuid() == 0 {
			var portable []liblxc.Item
			for _, it := range items {
				if !strings.HasPrefix(it.Key, "lxc.apparmor") && it.Key != "lxc.log.file" {
					portable = append(portable, it)
				}
			}
			if err := liblxc.Check("/mnt/x", "WEB", portable); err != nil {
				t.Error(err)
			}
			err := liblxc.Check("/mnt/x", "WEB", []liblxc.Item{{Key: "lxc.uts.name", Value: "a"}, {Key: "lxc.no.such.key", Value: "1"}})
			if err == nil || !strings.Contains(err.Error(), "lxc.no.such.key") {
				t.Errorf("an unknown key: %v", err)
			}
			_ = removeLocks("/mnt/x", "WEB")
			_ = removeLocks("/mnt/x", "")
		}
	}
}

func TestOptions(t *testing.T) {
	good := Options{Dir: "/var/lib/x", CgroupParent: "x", LinkPrefix: "x", Table: "x"}
	if err := good.check(); err != nil {
		t.Error(err)
	}
	for what, edit := range map[string]func(*Options){
		"dir":     func(o *Options) { o.Dir = "relative" },
		"cgroup":  func(o *Options) { o.CgroupParent = "a/b" },
		"prefix":  func(o *Options) { o.LinkPrefix = "far too long" },
		"table":   func(o *Options) { o.Table = "" },
		"subnet":  func(o *Options) { o.Subnet4 = netip.MustParsePrefix("fd00::/64") },
		"small":   func(o *Options) { o.Subnet4 = netip.MustParsePrefix("10.0.0.0/31") },
		"subnet6": func(o *Options) { o.Subnet6 = netip.MustParsePrefix("10.0.0.0/24") },
		"mtu":     func(o *Options) { o.MTU = 100 },
	} {
		o := good
		edit(&o)
		if o.check() == nil {
			t.Errorf("%s: taken", what)
		}
	}
}

func TestLinkNames(t *testing.T) {
	seen := map[string]bool{}
	for _, n := range []string{"A", "B", "AB", "web", "WEB"} {
		l := linkName("prefix7", n)
		if len(l) != 15 || seen[l] {
			t.Errorf("%s: %s", n, l)
		}
		seen[l] = true
	}
}

func TestExitStatus(t *testing.T) {
	for status, want := range map[int]string{0: "exit 0", 7 << 8: "exit 7", 255 << 8: "exit 255", 9<<8 | 0x7f: "signal killed", 15: "signal terminated"} {
		if got := (outcome{Started: true, Status: status}).exitStatus().String(); got != want {
			t.Errorf("%#x: got %s, want %s", status, got, want)
		}
	}
	if got := (ExitStatus{Code: -1}).String(); got != "unknown" {
		t.Errorf("got %s", got)
	}
}
