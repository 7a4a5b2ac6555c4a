package lxcrt_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/selfstead/selfstead/lxcrt"
	"github.com/selfstead/selfstead/lxcrt/logs"
	"github.com/selfstead/selfstead/lxcrt/lxcrttest"
)

const starterKey = "LXCRT_STARTER"

// A caller that starts one container and waits to be killed.
func init() {
	text := os.Getenv(starterKey)
	if text == "" {
		return
	}
	var job struct {
		Options lxcrt.Options
		Spec    lxcrt.Spec
	}
	err := json.Unmarshal([]byte(text), &job)
	var rt *lxcrt.Runtime
	if err == nil {
		rt, err = lxcrt.New(context.Background(), job.Options)
	}
	var c *lxcrt.Container
	if err == nil {
		c, err = rt.Create(context.Background(), job.Spec)
	}
	if err == nil {
		err = c.Start(context.Background())
	}
	fmt.Println("started", err)
	select {}
}

// counting prints numbers, one after another, until it is told to stop.
const counting = "trap 'exit 0' TERM; i=0; while :; do echo $i; i=$((i+1)); sleep 0.005; done"

// counted reads a log from a cursor until n more lines are there, and says where
// it got to. The numbers must follow one another.
func counted(t *testing.T, dir, cursor string, next, n int) (string, int) {
	t.Helper()
	enough := errors.New("enough")
	err := logs.Open(dir, lxcrt.LogName).Follow(lxcrttest.Context(t), cursor, 0, func(e logs.Entry) error {
		if e.Message != strconv.Itoa(next) {
			return fmt.Errorf("after %d comes %q", next-1, e.Message)
		}
		next, n, cursor = next+1, n-1, e.Cursor
		if n == 0 {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) {
		t.Fatal(err)
	}
	return cursor, next
}

// loggers are the pids of a container's logger, the outer one first.
func loggers(t *testing.T, dir string) []int {
	t.Helper()
	procs, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	var outer, inner []int
	for _, p := range procs {
		b, err := os.ReadFile(p)
		if err != nil || !strings.HasPrefix(string(b), "lxcrt-launcher\x00log\x00"+dir+"\x00") {
			continue
		}
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(p)))
		stat, err := os.ReadFile(filepath.Join(filepath.Dir(p), "stat"))
		if err != nil {
			continue
		}
		ppid := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))[1]
		if b, _ := os.ReadFile("/proc/" + ppid + "/cmdline"); strings.HasPrefix(string(b), "lxcrt-launcher\x00log\x00") {
			inner = append(inner, pid)
		} else {
			outer = append(outer, pid)
		}
	}
	return append(outer, inner...)
}

// TestLogOutlivesCaller kills the caller of a container that writes: every line is
// kept, those written while nobody was there too.
func TestLogOutlivesCaller(t *testing.T) {
	lab := lxcrttest.NewLab(t)
	if err := lab.Close(); err != nil {
		t.Fatal(err)
	}
	spec := lab.Spec(counting)
	spec.Log = &lxcrt.Log{}
	job, err := json.Marshal(map[string]any{"Options": lab.Options, "Spec": spec})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), starterKey+"="+string(job))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	if !lines.Scan() || lines.Text() != "started <nil>" {
		t.Fatalf("the caller says %q", lines.Text())
	}
	dir := filepath.Join(lab.Options.Dir, spec.Name, "log")
	cursor, next := counted(t, dir, "0.0", 0, 5)
	_ = cmd.Process.Signal(syscall.SIGKILL)
	_ = cmd.Wait()
	cursor, next = counted(t, dir, cursor, next, 50)

	lab.Open()
	ctx := lxcrttest.Context(t)
	c, err := lab.Load(ctx, spec.Name)
	if err != nil {
		t.Fatal(err)
	}
	cursor, next = counted(t, dir, cursor, next, 5)
	if err := c.Stop(ctx, lxcrt.StopOptions{}); err != nil {
		t.Fatal(err)
	}
	if left := loggers(t, dir); len(left) > 0 {
		t.Errorf("loggers %v of a stopped container", left)
	}
	for { // the rest is there once it is stopped
		page, err := logs.Open(dir, lxcrt.LogName).Read(logs.Query{Cursor: cursor})
		if err != nil {
			t.Fatal(err)
		}
		if len(page.Entries) == 0 {
			break
		}
		for _, e := range page.Entries {
			if e.Message != strconv.Itoa(next) {
				t.Fatalf("after %d comes %q", next-1, e.Message)
			}
			next++
		}
		cursor = page.EndCursor
	}
	if err := c.Destroy(ctx); err != nil {
		t.Fatal(err)
	}
}

// TestKilledLogger kills what reads a container's output: the container does not
// notice, and its log goes on.
func TestKilledLogger(t *testing.T) {
	lab, ctx := lxcrttest.NewLab(t), lxcrttest.Context(t)
	spec := lab.Spec(counting)
	spec.Log = &lxcrt.Log{}
	c := lab.Start(spec)
	_, _ = counted(t, c.LogDir(), "0.0", 0, 5)
	both := loggers(t, c.LogDir())
	if len(both) != 2 {
		t.Fatalf("loggers %v", both)
	}
	if err := unix.Kill(both[1], unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	page, err := logs.Open(c.LogDir(), lxcrt.LogName).Read(logs.Query{Limit: 1})
	if err != nil {
		t.Fatal(err)
	}
	last, err := strconv.Atoi(page.Entries[0].Message)
	if err != nil {
		t.Fatal(err)
	}
	// What stood in the pipe is there; only what the killed one held may miss.
	seen := 0
	enough := errors.New("enough")
	err = logs.Open(c.LogDir(), lxcrt.LogName).Follow(ctx, page.EndCursor, 0, func(e logs.Entry) error {
		n, err := strconv.Atoi(e.Message)
		if err != nil || n <= last || n > last+2 && seen == 0 || n > last+1 && seen > 0 {
			return fmt.Errorf("after %d comes %q", last, e.Message)
		}
		if last, seen = n, seen+1; seen == 20 {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) {
		t.Fatal(err)
	}
	if c.State() != lxcrt.Running {
		t.Errorf("the container is %s", c.State())
	}
	var pss int64
	for _, pid := range loggers(t, c.LogDir()) {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			t.Fatal(err)
		}
		for l := range strings.Lines(string(text)) {
			var kb int64
			if _, err := fmt.Sscanf(l, "Pss: %d kB", &kb); err == nil {
				pss += kb
			}
		}
	}
	t.Logf("logger: %d kB proportional", pss)
}

// TestFullLogDisk: a container does not wait for a full disk, and what is missing
// is said.
func TestFullLogDisk(t *testing.T) {
	lab, ctx := lxcrttest.NewLab(t), lxcrttest.Context(t)
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=128k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 64<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	spec := lab.Spec("i=0; while [ $i -lt 4000 ]; do echo 0123456789012345678901234567890123456789 $i; i=$((i+1)); done; echo >/done; while ! test -e /go; do sleep 0.01; done; echo last; exit 3")
	spec.Log = &lxcrt.Log{Dir: dir}
	c := lab.Start(spec)
	lxcrttest.MustSh(t, c, "while ! test -e /done; do sleep 0.01; done") // it is not held up
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	lxcrttest.MustSh(t, c, "echo >/go")
	st, err := c.Wait(ctx)
	if err != nil || st.Code != 3 {
		t.Fatal(st, err)
	}
	page, err := logs.Open(dir, lxcrt.LogName).Read(logs.Query{Limit: 10})
	if err != nil {
		t.Fatal(err)
	}
	text := ""
	for _, e := range page.Entries {
		text += e.Message + "\n"
	}
	if !strings.Contains(text, "last\n") || !strings.Contains(text, "lines could not be written") {
		t.Errorf("the log ends %q", text)
	}
}

// BenchmarkStartWithLog compares a start with a log to one without, in turn.
func BenchmarkStartWithLog(b *testing.B) {
	lab, ctx := lxcrttest.NewLab(b), context.Background()
	var with, without []time.Duration
	for b.Loop() {
		for _, l := range []*lxcrt.Log{nil, {}} {
			spec := lab.Spec("")
			spec.Log = l
			begin := time.Now()
			c, err := lab.Create(ctx, spec)
			if err == nil {
				err = c.Start(ctx)
			}
			took := time.Since(begin)
			if err == nil {
				err = c.Stop(ctx, lxcrt.StopOptions{Grace: -1})
			}
			if err == nil {
				err = c.Destroy(ctx)
			}
			if err != nil {
				b.Fatal(err)
			}
			if l == nil {
				without = append(without, took)
			} else {
				with = append(with, took)
			}
		}
	}
	b.ReportMetric(median(with), "log-ms")
	b.ReportMetric(median(without), "plain-ms")
	b.ReportMetric(median(with)/median(without), "ratio")
}
