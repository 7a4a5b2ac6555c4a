package service

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/selfstead/selfstead/s9pk"
	"github.com/selfstead/selfstead/s9pk/exver"
	"github.com/selfstead/selfstead/server/problem"
	"github.com/stretchr/testify/require"
)

func machineFiles(t *testing.T, ids bool) string {
	root := t.TempDir()
	write := func(name, text string) {
		require.NoError(t, os.MkdirAll(filepath.Join(root, filepath.Dir(name)), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(root, name), []byte(text), 0o644))
	}
	write("proc/cpuinfo", "processor\t: 0\nvendor_id\t: GenuineIntel\nmodel name\t: Intel(R) N100\nflags\t\t: fpu avx2\n\nprocessor\t: 1\nvendor_id\t: GenuineIntel\nmodel name\t: Intel(R) N100\nflags\t\t: fpu avx2\n\n")
	write("sys/bus/pci/devices/0000:00:02.0/class", "0x030000\n")
	write("sys/bus/pci/devices/0000:00:02.0/vendor", "0x10de\n")
	write("sys/bus/pci/devices/0000:00:02.0/device", "0x2684\n")
	require.NoError(t, os.Symlink("../../../../bus/pci/drivers/nvidia", filepath.Join(root, "sys/bus/pci/devices/0000:00:02.0/driver")))
	write("sys/bus/pci/devices/0000:00:1f.0/class", "0x060100\n")
	if ids {
		write("usr/share/misc/pci.ids", "# list\n1002  AMD\n\t2684  Wrong\n10de  NVIDIA Corporation\n\t2683  Other\n\t2684  AD102 [GeForce RTX 4090]\n8086  Intel\n")
	}
	return root
}

func TestRequirements(t *testing.T) {
	t.Parallel()
	text := func(s string) *string { return &s }
	size := func(n uint64) *uint64 { return &n }
	display := func(product, vendor, driver *string) []s9pk.DeviceFilter {
		return []s9pk.DeviceFilter{{Description: "a card", Class: s9pk.ClassDisplay, Product: product, Vendor: vendor, Driver: driver}}
	}
	for name, c := range map[string]struct {
		m      func(*s9pk.Manifest)
		reason string // "": it may come
	}{
		"nothing asked":     {func(*s9pk.Manifest) {}, ""},
		"a later system":    {func(m *s9pk.Manifest) { m.OSVersion = exver.MustParseExtended("0.4.1:0").Upstream }, "made for release 0.4.1"},
		"an older system":   {func(m *s9pk.Manifest) { m.OSVersion = exver.MustParseExtended("0.3.5:0").Upstream }, ""},
		"a very old system": {func(m *s9pk.Manifest) { m.OSVersion = exver.MustParseExtended("0.2.9:0").Upstream }, "the oldest that runs here"},
		"all the memory":    {func(m *s9pk.Manifest) { m.HardwareRequirements.RAM = size(1 << 30) }, ""},
		"more memory":       {func(m *s9pk.Manifest) { m.HardwareRequirements.RAM = size(1<<30 + 1) }, "needs 1073741825 bytes of memory"},
		"the card": {func(m *s9pk.Manifest) {
			m.HardwareRequirements.Devices = display(text("RTX 40"), text("(?i)nvidia"), text("nvidia"))
		}, ""},
		"another card":   {func(m *s9pk.Manifest) { m.HardwareRequirements.Devices = display(text("RTX 50"), nil, nil) }, "does not have: a card"},
		"another driver": {func(m *s9pk.Manifest) { m.HardwareRequirements.Devices = display(nil, nil, text("amdgpu")) }, "does not have: a card"},
		"not readable":   {func(m *s9pk.Manifest) { m.HardwareRequirements.Devices = display(text("("), nil, nil) }, "cannot be read"},
		"an instruction": {func(m *s9pk.Manifest) {
			m.HardwareRequirements.Devices = []s9pk.DeviceFilter{{Class: s9pk.ClassProcessor, Vendor: text("^Intel"), Capabilities: []string{"avx2"}, Driver: text("ignored")}}
		}, ""},
		"an instruction that lacks": {func(m *s9pk.Manifest) {
			m.HardwareRequirements.Devices = []s9pk.DeviceFilter{{Description: "a processor", Class: s9pk.ClassProcessor, Capabilities: []string{"avx2", "avx512f"}}}
		}, "does not have: a processor"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := &s9pk.Manifest{ID: "alpha", OSVersion: exver.MustParseExtended(s9pk.OSVersion + ":0").Upstream}
			c.m(m)
			err := checkRequirements(m, 1<<30, func() []device { return findDevices(machineFiles(t, true)) })
			if c.reason == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorIs(t, err, problem.New(0, problem.CodeIncompatible, ""))
			require.ErrorContains(t, err, c.reason)
		})
	}
}

func TestFindDevices(t *testing.T) {
	t.Parallel()
	list := findDevices(machineFiles(t, false))
	require.Len(t, list, 3)
	require.Equal(t, device{Class: "processor", Product: "Intel(R) N100", Vendor: "Intel Corp.", Capabilities: []string{"fpu", "avx2"}}, list[0])
	require.Equal(t, device{Class: "display", Product: "Device 2684", Vendor: "NVIDIA Corporation", Driver: "nvidia"}, list[2])
	require.Empty(t, findDevices(t.TempDir()))
}
