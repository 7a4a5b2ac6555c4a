// Package lxcrttest is for tests of and with lxcrt.
//
// For code that uses lxcrt: write it against lxcrt.Engine and test it on a
// FakeHost, which needs neither root nor LXC. Programs are Go functions, any call
// can be made to fail or to hang, a container can crash; see the example.
//
// The conformance suite has two groups. Conform runs on any Subject, the fake
// included: life, states, events, programs, limits, mounts, logs, adoption, typed
// errors, contexts, concurrent use. Run is the kernel's group, on real LXC only:
// what is seen inside, id maps, packet filters, confinement, leftovers.
//
// For tests that need real containers: a root file system made from busybox, a
// runtime in a network namespace of the test's own (Main moves the test binary
// there, so that no address of a test is ever seen outside), and a count of what
// is left behind.
package lxcrttest
