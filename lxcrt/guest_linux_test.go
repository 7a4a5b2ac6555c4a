package lxcrt_test

import (
	"errors"
	"io/fs"
	"path/filepath"
	"testing"

	"github.com/selfstead/selfstead/lxcrt"
	"github.com/selfstead/selfstead/lxcrt/image"
	"github.com/selfstead/selfstead/lxcrt/lxcrttest"
)

// TestGuest: with Options.Guest a container needs no program of its image to be
// there, and has that program where it cannot change it.
func TestGuest(t *testing.T) {
	lxcrttest.Need(t, "go")
	ctx := lxcrttest.Context(t)
	guest, err := image.Guest(ctx, image.GuestOptions{Cache: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	lab := lxcrttest.NewLab(t, func(o *lxcrt.Options) { o.Guest = guest })
	spec := lab.Spec("")
	spec.Init = nil
	c := lab.Start(spec)
	if out := lxcrttest.MustSh(t, c, "cat /proc/1/comm; (sleep 0.01 &); stat -c %u "+lxcrt.GuestPath); out != ".guest\n65534" {
		t.Errorf("PID 1 and the owner of its program: %q", out)
	}
	if out, st := lxcrttest.Sh(t, c, "echo x >"+lxcrt.GuestPath+" || rm "+lxcrt.GuestPath+" || umount "+lxcrt.GuestPath); st.Code == 0 {
		t.Errorf("the program can be changed inside: %s", out)
	}
	if err := c.Stop(ctx, lxcrt.StopOptions{}); err != nil {
		t.Fatal(err)
	}
	if st, err := c.Wait(ctx); err != nil || st != (lxcrt.ExitStatus{Known: true}) {
		t.Errorf("PID 1 ends with %v, %v", st, err)
	}
	// A program of the image, run by it as a user.
	spec = lab.Spec("")
	spec.Init = []string{lxcrt.GuestPath, "run", "--user=alice", "--workdir=/tmp", "--", "/bin/sh", "-c", "test $(id -u):$(pwd) = 1000:/tmp || exit 1; kill -9 $$"}
	c = lab.Start(spec)
	if st, err := c.Wait(ctx); err != nil || st.Code != 128+9 {
		t.Errorf("the program ended with %v, %v", st, err)
	}
	// One that is not there is an error of the start.
	if err := lab.Close(); err != nil {
		t.Fatal(err)
	}
	gone := filepath.Join(t.TempDir(), "guest")
	lab.Options.Guest = gone
	lab.Open()
	again, err := lab.Load(ctx, spec.Name)
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Start(ctx); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without its guest: %v", err)
	}
	names, err := lab.List()
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		left, err := lab.Load(ctx, n)
		if err == nil {
			err = left.Destroy(ctx)
		}
		if err != nil {
			t.Error(err)
		}
	}
}
