package lxcrt_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/selfstead/selfstead/lxcrt"
	"github.com/selfstead/selfstead/lxcrt/lxcrttest"
)

const victimKey = "LXCRT_VICTIM"

// victim is a caller that is going to be killed: it starts, uses and ends
// containers until then, saying on standard output what it is at.
func victim(text string) {
	var job struct {
		Options lxcrt.Options
		Specs   []lxcrt.Spec
		State   lxcrt.State // come to this and stay
	}
	if err := json.Unmarshal([]byte(text), &job); err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	ctx := context.Background()
	try := func(err error) {
		if err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
	}
	rt, err := lxcrt.New(ctx, job.Options)
	try(err)
	fmt.Println("open")
	if job.State == looking {
		c, err := rt.Load(ctx, job.Specs[0].Name)
		try(err)
		fmt.Println("found", c.State(), c.PID())
		try(rt.Close())
		return
	}
	if job.State != "" {
		try(hold(ctx, rt, job.Specs[0], job.State))
		return
	}
	var wg sync.WaitGroup
	for _, s := range job.Specs {
		wg.Go(func() {
			for {
				c, err := rt.Create(ctx, s)
				try(err)
				try(c.Start(ctx))
				fmt.Println("running", s.Name)
				try(c.Mount(ctx, lxcrt.Mount{Target: "/media/x", Kind: lxcrt.MountOverlay, Lower: s.Layers}))
				p, err := c.Exec(ctx, lxcrt.ExecSpec{Argv: []string{"/bin/true"}})
				try(err)
				_, err = p.Wait()
				try(err)
				try(c.Stop(ctx, lxcrt.StopOptions{Grace: -1}))
				try(c.Destroy(ctx))
			}
		})
	}
	wg.Wait()
}

// TestKilledCaller kills a caller at random moments of what it does, its starters
// half-way among them. Each time a new runtime takes over: containers that run
// are adopted whole, and after a clean-up nothing else is left.
func TestKilledCaller(t *testing.T) {
	lab := lxcrttest.NewLab(t)
	if err := lab.Close(); err != nil { // one runtime at a time for a folder
		t.Fatal(err)
	}
	rounds := 8
	if n, err := strconv.Atoi(os.Getenv("LXCRT_KILLS")); err == nil {
		rounds = n
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 7))
	specs := []lxcrt.Spec{lab.Spec(""), lab.Spec(""), lab.Spec("")}
	job, err := json.Marshal(map[string]any{"Options": lab.Options, "Specs": specs})
	if err != nil {
		t.Fatal(err)
	}
	adopted := 0
	for round := range rounds {
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
		lines := bufio.NewScanner(out)
		if !lines.Scan() || lines.Text() != "open" {
			t.Fatalf("the victim says %q", lines.Text())
		}
		kill := time.AfterFunc(time.Duration(rnd.IntN(700_000))*time.Microsecond, func() { _ = cmd.Process.Signal(syscall.SIGKILL) })
		for lines.Scan() {
			if strings.HasPrefix(lines.Text(), "error") {
				t.Errorf("the victim: %s", lines.Text())
			}
		}
		kill.Stop()
		_ = cmd.Wait()

		lab.Open()
		ctx := lxcrttest.Context(t)
		names, err := lab.List()
		if err != nil {
			t.Fatal(err)
		}
		var running []*lxcrt.Container
		for _, n := range names {
			c, err := lab.Load(ctx, n)
			if err == nil && c.State() == lxcrt.Running {
				running = append(running, c)
			}
		}
		want := round%2 == 0 // every other time those that run are wanted
		if !want {
			if err := lab.Close(); err != nil {
				t.Fatal(err)
			}
			lab.Open()
		}
		if err := lab.CleanUp(ctx, func(string) bool { return false }); err != nil {
			t.Fatal(err)
		}
		if want {
			for _, c := range running {
				adopted++
				if got := lxcrttest.MustSh(t, c, "ip -o addr show dev eth0 scope global | grep -c inet"); got != "2" {
					t.Errorf("an adopted container has %s addresses", got)
				}
				if err := c.Stop(ctx, lxcrt.StopOptions{Grace: -1}); err != nil {
					t.Error(err)
				}
			}
			for _, n := range names { // those that did not run were loaded too
				if c, err := lab.Load(ctx, n); err == nil {
					if err := c.Destroy(ctx); err != nil {
						t.Error(err)
					}
				}
			}
		}
		if err := lab.Close(); err != nil {
			t.Fatal(err)
		}
		if left := lxcrttest.Left(lab.Options); len(left) > 0 {
			t.Fatalf("left behind: %s", strings.Join(left, "\n"))
		}
	}
	t.Logf("%d rounds, %d adopted", rounds, adopted)
}

// TestRounds creates, starts, stops and destroys containers, twenty at a time:
// 40 times, 300 in CI, or as LXCRT_ROUNDS says.
func TestRounds(t *testing.T) {
	lab := lxcrttest.NewLab(t)
	rounds := 40
	if os.Getenv("CI") == "true" {
		rounds = 300
	}
	if n, err := strconv.Atoi(os.Getenv("LXCRT_ROUNDS")); err == nil {
		rounds = n
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(5*rounds+120)*time.Second)
	defer cancel()
	before := openFiles(t)
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			s := lab.Spec("exit 3")
			for range (rounds + 19 - i) / 20 {
				c, err := lab.Create(ctx, s)
				if err != nil {
					t.Error(err)
					return
				}
				if err := c.Start(ctx); err != nil {
					t.Error(err)
				}
				if st, err := c.Wait(ctx); err != nil || st.Code != 3 {
					t.Errorf("%s: %v %v", s.Name, st, err)
				}
				if err := c.Destroy(ctx); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if after := openFiles(t); after > before {
		t.Errorf("%d descriptors were open, %d are", before, after)
	}
	names, err := lab.List()
	if err != nil || len(names) > 0 {
		t.Errorf("left: %v %v", names, err)
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// TestKilledStarter kills the helper process at random moments of a start: the
// start fails or the container ends, and nothing stays.
func TestKilledStarter(t *testing.T) {
	lab := lxcrttest.NewLab(t)
	ctx := lxcrttest.Context(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 9))
	failed := 0
	for range 12 {
		c, err := lab.Create(ctx, lab.Spec(""))
		if err != nil {
			t.Fatal(err)
		}
		delay := time.Duration(rnd.IntN(60_000)) * time.Microsecond
		done := make(chan struct{})
		started := make(chan struct{})
		go func() {
			defer close(done)
			pid := 0
			for pid == 0 {
				select {
				case <-started:
					return
				default:
					pid = starterOf(c.Dir())
				}
			}
			time.AfterFunc(delay, func() { _ = syscall.Kill(pid, syscall.SIGKILL) })
		}()
		err = c.Start(ctx)
		close(started)
		<-done
		if err != nil {
			failed++
			if c.State() != lxcrt.Stopped {
				t.Errorf("after %v it is %s", err, c.State())
			}
		} else if _, err := c.Wait(ctx); err != nil {
			t.Errorf("started, then: %v", err)
		}
		if err := c.Destroy(ctx); err != nil {
			t.Error(err)
		}
	}
	t.Logf("%d starts failed", failed)
}

// starterOf finds the helper process of a container's folder, or 0.
func starterOf(dir string) int {
	procs, _ := os.ReadDir("/proc")
	for _, p := range procs {
		pid, err := strconv.Atoi(p.Name())
		if err != nil {
			continue
		}
		if b, err := os.ReadFile("/proc/" + p.Name() + "/cmdline"); err == nil && strings.HasPrefix(string(b), "lxcrt-launcher\x00start\x00") && strings.Contains(string(b), dir+"\x00") {
			return pid
		}
	}
	return 0
}

// TestNoCgroups: where no cgroup file system is seen, New says so.
func TestNoCgroups(t *testing.T) {
	lxcrttest.Need(t, "unshare", "umount")
	const key = "LXCRT_NO_CGROUPS"
	if os.Getenv(key) == "" {
		self, err := os.Open("/proc/self/exe")
		if err != nil {
			t.Fatal(err)
		}
		defer self.Close()
		cmd := exec.Command("unshare", "-m", "sh", "-c", "umount -l /sys/fs/cgroup && exec /proc/self/fd/3 -test.run '^TestNoCgroups$'")
		cmd.ExtraFiles = []*os.File{self}
		cmd.Env = append(os.Environ(), key+"=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return
	}
	_, err := lxcrt.New(t.Context(), lxcrt.Options{Dir: t.TempDir(), CgroupParent: "x", LinkPrefix: "x", Table: "x"})
	if !errors.Is(err, lxcrt.ErrNotSupported) || !strings.Contains(err.Error(), "cgroup file system") {
		t.Errorf("got %v", err)
	}
}
