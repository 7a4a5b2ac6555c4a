package lxcrt_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/selfstead/selfstead/lxcrt"
	"github.com/selfstead/selfstead/lxcrt/lxcrttest"
)

// looking has a victim load its container, say what it is, and end.
const looking = lxcrt.State("looking")

// TestLiveness: whether a container runs is judged by its PID 1, seen from any
// network namespace, and by when that began, so that a later process of the same
// number is not taken for it.
func TestLiveness(t *testing.T) {
	lab := lxcrttest.NewLab(t)
	ctx := lxcrttest.Context(t)
	c := lab.Start(lab.Spec(""))
	if err := lab.Close(); err != nil {
		t.Fatal(err)
	}
	job, err := json.Marshal(map[string]any{"Options": lab.Options, "Specs": []lxcrt.Spec{c.Spec()}, "State": looking})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), victimKey+"="+string(job))
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	out, err := cmd.CombinedOutput()
	if want := fmt.Sprintf("open\nfound running %d\n", c.PID()); err != nil || string(out) != want {
		t.Errorf("from another network namespace: %q (%v), want %q", out, err, want)
	}

	// A process of the same number, of another time.
	lab.Open()
	stopped, err := lab.Create(ctx, lab.Spec(""))
	if err != nil {
		t.Fatal(err)
	}
	other := exec.Command("sleep", "1000")
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { _ = other.Wait(); close(ended) }()
	defer func() { _ = other.Process.Kill(); <-ended }()
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		t.Fatal(err)
	}
	same := map[string]any{"pid": other.Process.Pid, "start": 1}
	record, err := json.Marshal(map[string]any{"boot": strings.TrimSpace(string(boot)), "monitor": same, "init": same, "logger": same})
	if err != nil {
		t.Fatal(err)
	}
	if err := lab.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(stopped.Dir(), "run.json"), record, 0o600); err != nil {
		t.Fatal(err)
	}
	lab.Open()
	again, err := lab.Load(ctx, stopped.Name())
	if err != nil {
		t.Fatal(err)
	}
	if again.State() != lxcrt.Stopped {
		t.Errorf("it is %s", again.State())
	}
	if err := again.Destroy(ctx); err != nil {
		t.Error(err)
	}
	if err := other.Process.Signal(syscall.Signal(0)); err != nil {
		t.Errorf("a process that is not the container's was ended: %v", err)
	}
	running, err := lab.Load(ctx, c.Name())
	if err != nil {
		t.Fatal(err)
	}
	if running.State() != lxcrt.Running || running.PID() != c.PID() {
		t.Errorf("it is %s, %d", running.State(), running.PID())
	}
	if err := running.Stop(ctx, lxcrt.StopOptions{Grace: -1}); err != nil {
		t.Error(err)
	}
	if err := running.Destroy(ctx); err != nil {
		t.Error(err)
	}
}
