package lxcrttest

import (
	"slices"
	"testing"

	"github.com/selfstead/selfstead/lxcrt"
)

// Factory makes a lab; NewLab is one, and so is a function that calls it with
// options of its own.
type Factory func(t testing.TB, edit ...func(*lxcrt.Options)) *Lab

// Run runs the suite, or the named parts of it, against labs of the factory. Every promise of lxcrt's
// documentation that a caller can see from outside is tried; after each test
// nothing with the lab's names may be left on the machine.
func Run(t *testing.T, f Factory, parts ...string) {
	Need(t, "busybox", "mksquashfs", "nft", "ip")
	for _, c := range []struct {
		name string
		test func(t *testing.T, f Factory)
	}{
		{"life", testLife},
		{"events", testEvents},
		{"exit", testExit},
		{"refused", testRefused},
		{"inside", testInside},
		{"mounts", testMounts},
		{"mounts of the start", testStartMounts},
		{"read-only stays", testLockedMounts},
		{"targets stay inside", testTargets},
		{"composed ids", testComposed},
		{"nested namespaces", testNested},
		{"devices", testDevices},
		{"exec", testExec},
		{"confinement", testConfinement},
		{"system calls", testCalls},
		{"AppArmor", testAppArmor},
		{"terminal", testTerminal},
		{"freeze", testFreeze},
		{"limits", testLimits},
		{"changed limits", testSetLimits},
		{"disk limits", testIO},
		{"cgroup view", testCgroupView},
		{"upper size", testUpperSize},
		{"links", testLinks},
		{"edges", testEdges},
		{"spoofing", testSpoofing},
		{"bridge", testBridge},
		{"raw sockets", testRawSockets},
		{"escapes", testEscapes},
		{"adoption", testAdoption},
		{"killed monitor", testKilledMonitor},
		{"leftovers", testLeftovers},
	} {
		if len(parts) > 0 && !slices.Contains(parts, c.name) {
			continue
		}
		t.Run(c.name, func(t *testing.T) { c.test(t, f) })
	}
}
