package lxcrttest

import "testing"

func TestFakeConforms(t *testing.T) {
	Conform(t, func(t testing.TB) Subject { return NewFakeLab(t) })
}
