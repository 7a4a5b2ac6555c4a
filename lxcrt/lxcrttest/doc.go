// Package lxcrttest is the conformance suite of lxcrt and the kit for tests that
// need real containers: a root file system made from busybox, a runtime in a
// network namespace of the test's own, and a count of what is left behind.
//
// Everything runs on real LXC. Main moves the test binary into a new network
// namespace, so that no address of a test is ever seen outside of it.
package lxcrttest
