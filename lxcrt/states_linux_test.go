package lxcrt_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/selfstead/selfstead/lxcrt"
	"github.com/selfstead/selfstead/lxcrt/lxcrttest"
)

// hold brings a container into a state, says so, and stays there until it is
// killed. Starting and Stopping it says from within Start and Stop.
func hold(ctx context.Context, rt *lxcrt.Runtime, s lxcrt.Spec, state lxcrt.State) error {
	events := rt.Events(ctx)
	c, err := rt.Create(ctx, s)
	if err != nil {
		return err
	}
	said := make(chan struct{})
	go func() {
		for e := range events {
			if e.State == state {
				fmt.Println("at", state, c.PID())
				close(said)
				return
			}
		}
	}()
	if state == lxcrt.Stopped {
		fmt.Println("at", state, 0)
	} else {
		if err := c.Start(ctx); err != nil {
			return err
		}
		switch state {
		case lxcrt.Frozen:
			err = c.Freeze(ctx)
		case lxcrt.Stopping:
			err = c.Stop(ctx, lxcrt.StopOptions{Grace: time.Hour}) // PID 1 does not listen
		}
		if err != nil {
			return err
		}
		<-said
	}
	<-ctx.Done() // never
	return nil
}

// TestKilledInEachState kills the caller, the monitor, or both, in each state that
// a container can be in. A new runtime finds what is true and can go on with it;
// nothing is left of what ended.
func TestKilledInEachState(t *testing.T) {
	lab := lxcrttest.NewLab(t)
	if err := lab.Close(); err != nil { // one runtime at a time for a folder
		t.Fatal(err)
	}
	for _, state := range []lxcrt.State{lxcrt.Stopped, lxcrt.Starting, lxcrt.Running, lxcrt.Frozen, lxcrt.Stopping} {
		for _, whom := range []string{"caller", "monitor", "both", "both, then clean up"} {
			if state == lxcrt.Stopped && whom != "caller" {
				continue // there is no monitor
			}
			t.Run(fmt.Sprintf("%s, %s", state, whom), func(t *testing.T) { killIn(t, lab, state, whom) })
		}
	}
}

func killIn(t *testing.T, lab *lxcrttest.Lab, state lxcrt.State, whom string) {
	ctx := lxcrttest.Context(t)
	spec := lab.Spec("trap '' TERM; while :; do sleep 1000 & wait $!; done")
	job, err := json.Marshal(map[string]any{"Options": lab.Options, "Specs": []lxcrt.Spec{spec}, "State": state})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), victimKey+"="+string(job))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	caller := cmd.Process
	ended := make(chan struct{})
	lines := bufio.NewScanner(out)
	pid := -1
	for pid < 0 && lines.Scan() {
		if f := strings.Fields(lines.Text()); len(f) == 3 && f[0] == "at" {
			pid, _ = strconv.Atoi(f[2])
		} else if lines.Text() != "open" {
			t.Fatalf("the victim: %s", lines.Text())
		}
	}
	go func() {
		defer close(ended)
		for lines.Scan() {
		}
		_ = cmd.Wait()
	}()
	monitor := 0
	if state != lxcrt.Stopped {
		for deadline := time.Now().Add(10 * time.Second); monitor == 0 && time.Now().Before(deadline); {
			monitor = starterOf(lab.Options.Dir + "/" + spec.Name)
		}
		if monitor == 0 {
			t.Fatal("no monitor")
		}
	}
	if whom != "monitor" { // the caller first, that it does not see the other's end
		_ = caller.Signal(syscall.SIGKILL)
		<-ended
	}
	if whom != "caller" {
		_ = syscall.Kill(monitor, syscall.SIGKILL)
	}
	if whom == "monitor" {
		// Its caller has time to notice, and then goes too.
		for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
			if _, err := os.Stat(lab.Options.Dir + "/" + spec.Name + "/run.json"); os.IsNotExist(err) {
				break
			}
		}
		_ = caller.Signal(syscall.SIGKILL)
		<-ended
	}

	lab.Open()
	defer func() {
		if err := lab.Close(); err != nil {
			t.Error(err)
		}
		if left := lxcrttest.Left(lab.Options); len(left) > 0 {
			t.Errorf("left behind: %s", strings.Join(left, "\n"))
		}
	}()
	if strings.HasSuffix(whom, "clean up") {
		if err := lab.CleanUp(ctx, func(string) bool { return false }); err != nil {
			t.Error(err)
		}
		if names, err := lab.List(); err != nil || len(names) > 0 {
			t.Errorf("left: %v %v", names, err)
		}
		return
	}
	c, err := lab.Load(ctx, spec.Name)
	if err != nil {
		t.Fatal(err)
	}
	want := []lxcrt.State{lxcrt.Stopped}
	if whom == "caller" {
		want = map[lxcrt.State][]lxcrt.State{
			lxcrt.Stopped:  {lxcrt.Stopped},
			lxcrt.Starting: {lxcrt.Stopped, lxcrt.Running}, // it may have got through before
			lxcrt.Running:  {lxcrt.Running},
			lxcrt.Frozen:   {lxcrt.Frozen},
			lxcrt.Stopping: {lxcrt.Running}, // nobody asks it any more
		}[state]
	}
	ok := false
	// A monitor that was killed a moment ago may look alive yet.
	for deadline := time.Now().Add(10 * time.Second); !ok && time.Now().Before(deadline); {
		ok = slices.Contains(want, c.State())
	}
	if !ok {
		t.Errorf("it is %s, want one of %v", c.State(), want)
	}
	if c.State() == lxcrt.Frozen {
		if err := c.Thaw(ctx); err != nil {
			t.Error(err)
		}
	}
	if c.State() == lxcrt.Stopped {
		if err := c.Start(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if got := lxcrttest.MustSh(t, c, "ip -o addr show dev eth0 scope global | grep -c inet"); got != "2" {
		t.Errorf("it has %s addresses", got)
	}
	if err := c.Stop(ctx, lxcrt.StopOptions{Grace: -1}); err != nil {
		t.Error(err)
	}
	if err := c.Destroy(ctx); err != nil {
		t.Error(err)
	}
}
