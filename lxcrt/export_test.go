//go:build linux

package lxcrt

// ProbeHook lets tests of package lxcrt_test take features away.
var ProbeHook = &probeHook

// Guarded is what the source of a writable bind with an id map has to pass.
var Guarded = guarded
