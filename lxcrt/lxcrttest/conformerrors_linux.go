package lxcrttest

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/selfstead/selfstead/lxcrt"
)

func conformErrors(t *testing.T, b *bench) {
	good := b.Spec("")
	for what, edit := range map[string]func(*lxcrt.Spec){
		"name":                   func(s *lxcrt.Spec) { s.Name = "../up" },
		"layers":                 func(s *lxcrt.Spec) { s.Layers = nil },
		"init":                   func(s *lxcrt.Spec) { s.Init = []string{"sh"} },
		"no init":                func(s *lxcrt.Spec) { s.Init = nil },
		"ids":                    func(s *lxcrt.Spec) { s.IDs.Base = 0 },
		"env":                    func(s *lxcrt.Spec) { s.Env = []string{"A"} },
		"kind":                   func(s *lxcrt.Spec) { s.Mounts = []lxcrt.Mount{{Target: "/x", Kind: "nfs"}} },
		"gateway":                func(s *lxcrt.Spec) { s.Addr4, _ = b.Engine().Gateway() },
		"disk":                   func(s *lxcrt.Spec) { s.Limits.IO.ReadOps = -1 },
		"share":                  func(s *lxcrt.Spec) { s.Limits.IO.Weight = 10001 },
		"bridge":                 func(s *lxcrt.Spec) { s.Bridge = &lxcrt.Bridge{Name: "a bridge"} },
		"no network of a bridge": func(s *lxcrt.Spec) { s.Bridge = &lxcrt.Bridge{Name: "br0"} },
		"address off a bridge": func(s *lxcrt.Spec) {
			s.Addr6, s.Bridge = netip.Addr{}, &lxcrt.Bridge{Name: "br0", Net4: netip.MustParsePrefix("192.0.2.0/24")}
		},
		"gateway off a bridge": func(s *lxcrt.Spec) {
			s.Addr4, s.Addr6 = netip.MustParseAddr("192.0.2.2"), netip.Addr{}
			s.Bridge = &lxcrt.Bridge{Name: "br0", Net4: netip.MustParsePrefix("192.0.2.0/24"), Gateway4: netip.MustParseAddr("198.51.100.1")}
		},
		"log":     func(s *lxcrt.Spec) { s.Log = &lxcrt.Log{MaxSize: 1} },
		"outputs": func(s *lxcrt.Spec) { s.Log, s.Console = &lxcrt.Log{}, "/dev/null" },
	} {
		s := good
		edit(&s)
		_, err := b.Engine().Create(b.ctx, s)
		var where *lxcrt.Error
		if !errors.Is(err, lxcrt.ErrInvalid) || !errors.As(err, &where) || where.Name != s.Name {
			t.Errorf("%s: %v", what, err)
		}
	}
	is(t, b.Engine().SetEdges(b.ctx, []lxcrt.Edge{{From: "a", To: "b", Protocol: "sctp", Port: 1}}), lxcrt.ErrInvalid)
	must(t, b.Engine().SetEdges(b.ctx, []lxcrt.Edge{{From: "a", To: "b", Protocol: "tcp", Port: 1}}))
	_, err := b.Engine().Load(b.ctx, "nobody")
	is(t, err, lxcrt.ErrNotFound)
	// An address belongs to one container.
	c := b.create(good)
	twin := b.Spec("")
	twin.Addr6 = good.Addr6
	_, err = b.Engine().Create(b.ctx, twin)
	is(t, err, lxcrt.ErrExists)
	// On a bridge the subnets are the bridge's, and nobody has an address twice.
	ported := b.Spec("")
	ported.Bridge = &lxcrt.Bridge{Name: "br0", Net4: netip.MustParsePrefix("192.0.2.0/24")}
	ported.Addr4, ported.Addr6 = netip.MustParseAddr("192.0.2.2"), netip.Addr{}
	b.create(ported)
	twin.Bridge, twin.Addr4, twin.Addr6 = ported.Bridge, ported.Addr4, ported.Addr6
	_, err = b.Engine().Create(b.ctx, twin)
	is(t, err, lxcrt.ErrExists)
	// What needs a running one says so.
	_, err = c.Exec(b.ctx, lxcrt.ExecSpec{Argv: []string{"/bin/true"}})
	is(t, err, lxcrt.ErrNotRunning)
	is(t, c.Mount(b.ctx, lxcrt.Mount{Target: "/x", Kind: lxcrt.MountTmpfs}), lxcrt.ErrNotRunning)
	is(t, c.Unmount(b.ctx, "/x"), lxcrt.ErrNotRunning)
	is(t, c.Freeze(b.ctx), lxcrt.ErrNotRunning)
	_, err = c.Stats(b.ctx)
	is(t, err, lxcrt.ErrNotRunning)
	// What only a start can find out leaves a stopped container.
	for what, edit := range map[string]func(*lxcrt.Spec){
		"/no/such/layer": func(s *lxcrt.Spec) { s.Layers = []lxcrt.Layer{{Path: "/no/such/layer"}} },
		"/bin/nothing":   func(s *lxcrt.Spec) { s.Init = []string{"/bin/nothing"} },
		"/no/such/source": func(s *lxcrt.Spec) {
			s.Mounts = []lxcrt.Mount{{Target: "/x", Kind: lxcrt.MountBind, Source: "/no/such/source"}}
		},
	} {
		s := b.Spec("")
		edit(&s)
		c := b.create(s)
		if err := c.Start(b.ctx); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: %v", what, err)
		}
		equal(t, c.State(), lxcrt.Stopped)
		equal(t, c.PID(), 0)
	}
	// After Close nothing begins any more.
	must(t, b.Engine().Close())
	must(t, b.Engine().Close())
	_, err = b.Engine().Create(b.ctx, b.Spec(""))
	is(t, err, lxcrt.ErrClosed)
	_, err = b.Engine().Load(b.ctx, c.Name())
	is(t, err, lxcrt.ErrClosed)
	is(t, c.Start(b.ctx), lxcrt.ErrClosed)
	is(t, c.Stop(b.ctx, lxcrt.StopOptions{}), lxcrt.ErrClosed)
	b.Open()
	again, err := b.Engine().Load(b.ctx, c.Name())
	must(t, err)
	must(t, again.Destroy(b.ctx))
	names, err := b.Engine().List()
	must(t, err)
	for _, n := range names {
		left, err := b.Engine().Load(b.ctx, n)
		must(t, err)
		must(t, left.Destroy(b.ctx))
	}
}
