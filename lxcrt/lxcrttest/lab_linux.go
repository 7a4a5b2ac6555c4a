package lxcrttest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/selfstead/selfstead/lxcrt"
)

var labs atomic.Uint32

// Lab is a runtime for one test, with names and addresses of its own.
type Lab struct {
	*lxcrt.Runtime
	Options lxcrt.Options
	t       testing.TB
	next    atomic.Uint32
	base    uint32
}

// NewLab makes a runtime that is closed at the end of the test, after which
// nothing with its names may be left. Edit changes the options first.
func NewLab(t testing.TB, edit ...func(*lxcrt.Options)) *Lab {
	t.Helper()
	Need(t, "busybox", "mksquashfs")
	n := labs.Add(1)
	l := &Lab{t: t, base: 0x1000000 + n<<26}
	id := fmt.Sprintf("%x-%d", os.Getpid(), n)
	l.Options = lxcrt.Options{
		Dir:          filepath.Join(t.TempDir(), "state"),
		CgroupParent: "lxcrttest-" + id,
		LinkPrefix:   fmt.Sprintf("t%x", n),
		Table:        "lxcrttest-" + id,
		Subnet4:      netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 64 + byte(n>>4), byte(n << 4), 0}), 20),
		Subnet6:      netip.MustParsePrefix(fmt.Sprintf("fd00:77:%x::/64", n)),
	}
	for _, e := range edit {
		e(&l.Options)
	}
	t.Cleanup(func() { Leaks(t, l.Options) })
	l.Open()
	return l
}

// Open makes the lab's runtime, again after Close.
func (l *Lab) Open() {
	l.t.Helper()
	r, err := lxcrt.New(Context(l.t), l.Options)
	if err != nil {
		l.t.Fatal(err)
	}
	l.Runtime = r
	l.t.Cleanup(func() {
		if err := r.Close(); err != nil {
			l.t.Error(err)
		}
	})
}

// Context ends when the test has taken far too long.
func Context(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// Spec returns a container of busybox with addresses and ids of its own, whose
// PID 1 runs the script; an empty one sleeps until SIGTERM.
func (l *Lab) Spec(script string) lxcrt.Spec {
	l.t.Helper()
	_, squashfs := Rootfs(l.t)
	n := l.next.Add(1)
	if script == "" {
		script = "trap 'exit 0' TERM; while :; do sleep 1000 & wait $!; done"
	}
	s := lxcrt.Spec{
		Name:   fmt.Sprintf("C%d", n),
		Layers: []lxcrt.Layer{{Path: squashfs}},
		IDs:    lxcrt.IDRange{Base: l.base + n<<16, Count: 65536},
		Init:   []string{"/bin/sh", "-c", script},
		Env:    []string{"PATH=/bin"},
	}
	if l.Options.Subnet4.IsValid() {
		a := l.Options.Subnet4.Addr().As4()
		a[2], a[3] = a[2]+byte((n+1)>>8), byte(n+1)
		s.Addr4 = netip.AddrFrom4(a)
	}
	if l.Options.Subnet6.IsValid() {
		a := l.Options.Subnet6.Addr().As16()
		a[14], a[15] = byte((n+1)>>8), byte(n+1)
		s.Addr6 = netip.AddrFrom16(a)
	}
	return s
}

// Start creates and starts a container that is destroyed at the end of the test.
func (l *Lab) Start(s lxcrt.Spec) *lxcrt.Container {
	l.t.Helper()
	ctx := Context(l.t)
	c, err := l.Create(ctx, s)
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() {
		// At once: a script may not have got to its trap yet. A container of a
		// runtime that was closed is the next one's.
		err := c.Stop(context.WithoutCancel(ctx), lxcrt.StopOptions{Grace: -1})
		if err == nil {
			err = c.Destroy(context.WithoutCancel(ctx))
		}
		if err != nil && !errors.Is(err, lxcrt.ErrClosed) {
			l.t.Error(err)
		}
	})
	if err := c.Start(ctx); err != nil {
		l.t.Fatal(err)
	}
	return c
}

// Sh runs a script inside and returns what it wrote to both streams, and how it
// ended.
func Sh(t testing.TB, c *lxcrt.Container, script string) (string, lxcrt.ExitStatus) {
	t.Helper()
	var out bytes.Buffer
	p, err := c.Exec(Context(t), lxcrt.ExecSpec{Argv: []string{"/bin/sh", "-c", script}, Env: []string{"PATH=/bin"}, Stdout: &out, Stderr: &out})
	if err != nil {
		t.Fatal(err)
	}
	st, err := p.Wait()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSuffix(out.String(), "\n"), st
}

// MustSh is Sh for a script that has to end well.
func MustSh(t testing.TB, c *lxcrt.Container, script string) string {
	t.Helper()
	out, st := Sh(t, c, script)
	if st.Code != 0 {
		t.Fatalf("%s: %s: %s", script, st, out)
	}
	return out
}
