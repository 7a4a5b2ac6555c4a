//go:build linux

package lxcrt

// ProbeHook lets tests of package lxcrt_test take features away.
var ProbeHook = &probeHook
