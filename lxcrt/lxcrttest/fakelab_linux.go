package lxcrttest

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"testing"

	"github.com/selfstead/selfstead/lxcrt"
)

// FakeLab is a FakeHost for one test of the suite.
type FakeLab struct {
	Host    *FakeHost
	Options lxcrt.Options
	t       testing.TB
	engine  lxcrt.Engine
	next    int
}

// NewFakeLab makes a machine with the suite's programs and users, and an Engine on
// it that is closed at the end of the test.
func NewFakeLab(t testing.TB) *FakeLab {
	l := &FakeLab{Host: NewHost(), t: t, Options: lxcrt.Options{Dir: filepath.Join(t.TempDir(), "state"),
		Subnet4: netip.MustParsePrefix("10.64.0.0/20"), Subnet6: netip.MustParsePrefix("fd00:77::/64")}}
	l.Host.User("alice", 1000, 1000)
	l.Host.User("video", 4400, 44)
	l.Host.Program("/bin/sh", func(ctx context.Context, p *FakeProcess) int {
		if len(p.Argv) == 3 {
			for _, s := range scripts {
				if s.sh == p.Argv[2] {
					return s.run(ctx, p)
				}
			}
		}
		fmt.Fprintf(p.Stderr, "sh: the fake does not know %q\n", p.Argv)
		return 127
	})
	t.Cleanup(l.Host.Close)
	l.Open()
	return l
}

// Open opens an Engine, again after Close.
func (l *FakeLab) Open() {
	l.t.Helper()
	e, err := l.Host.Open(l.Options)
	if err != nil {
		l.t.Fatal(err)
	}
	l.engine = e
	l.t.Cleanup(func() {
		if err := e.Close(); err != nil {
			l.t.Error(err)
		}
	})
}

// Engine is the one that was opened last.
func (l *FakeLab) Engine() lxcrt.Engine { return l.engine }

// Spec returns a container with addresses and ids of its own, whose PID 1 runs a
// script of the suite; an empty one sleeps until SIGTERM.
func (l *FakeLab) Spec(script string) lxcrt.Spec {
	l.next++
	if script == "" {
		script = scripts["sleep"].sh
	}
	n := byte(l.next + 1)
	return lxcrt.Spec{Name: fmt.Sprintf("C%d", l.next), Layers: []lxcrt.Layer{{Path: l.t.TempDir()}},
		IDs: lxcrt.IDRange{Base: 1<<20 + uint32(l.next)<<16, Count: 65536}, Init: []string{"/bin/sh", "-c", script}, Env: []string{"PATH=/bin"},
		Addr4: netip.AddrFrom4([4]byte{10, 64, 0, n}), Addr6: netip.AddrFrom16([16]byte{0: 0xfd, 3: 0x77, 15: n})}
}
