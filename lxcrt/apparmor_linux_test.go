package lxcrt

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/selfstead/selfstead/lxcrt/internal/liblxc"
)

// TestAppArmorProfile: the profile is the golden one, and the compiler takes it,
// whether this kernel has AppArmor or not.
func TestAppArmorProfile(t *testing.T) {
	got := apparmorProfile(profileName("x"))
	file := filepath.Join("testdata", "apparmor.golden")
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	parser, err := apparmorParser()
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("missing here, where nothing may be: apparmor_parser (package apparmor)")
		}
		t.Skip("missing: apparmor_parser")
	}
	// With the features of a kernel that has AppArmor, as the package brings them.
	const abi = "/etc/apparmor.d/abi/3.0"
	cmd := exec.Command(parser, "--skip-kernel-load", "--skip-cache", "--policy-features", abi, "--kernel-features", abi, "--Werror")
	cmd.Stdin = strings.NewReader(got)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	for _, must := range []string{"  mount,\n", "  pivot_root,\n", "  umount,\n", "  capability,\n", "deny mount fstype=securityfs", "deny /sys/firmware/** rwklx"} {
		if !strings.Contains(got, must) {
			t.Errorf("lacks %q", must)
		}
	}
}

// TestAppArmorWays: each finding leads to its own line of the configuration.
func TestAppArmorWays(t *testing.T) {
	for label, want := range map[string]string{"": "", "unconfined": "lxc.apparmor.profile = unconfined\n", "lxcrt-x": "lxc.apparmor.profile = lxcrt-x\n"} {
		text := liblxc.Render(host{dir: "/var/lib/x", parent: "x", apparmor: label}.config(goldenSpec()))
		if got := strings.Contains(text, "lxc.apparmor"); got != (want != "") || !strings.Contains(text, want) {
			t.Errorf("%q: %s", label, text)
		}
	}
	label, missing := apparmorLabel("x")
	on, _ := os.ReadFile(apparmorSwitch)
	switch {
	case strings.TrimSpace(string(on)) != "Y":
		if label != "" || missing == "" {
			t.Errorf("without AppArmor: %q %q", label, missing)
		}
	case (label == "lxcrt-x") != (missing == ""):
		t.Errorf("%q %q", label, missing)
	}
	t.Logf("here: %q %s", label, missing)
}
