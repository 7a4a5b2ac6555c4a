package nat

import (
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// inNamespace runs the test on a thread in a network namespace of its own.
func inNamespace(t *testing.T, programs ...string) {
	t.Helper()
	missing := ""
	if os.Geteuid() != 0 {
		missing = "root"
	}
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			missing = "the program " + p
		}
	}
	if missing != "" && os.Getenv("CI") == "true" {
		t.Fatalf("this test needs %s", missing)
	}
	if missing != "" {
		t.Skipf("this test needs %s", missing)
	}
	runtime.LockOSThread() // for good: the thread ends with the test
	require.NoError(t, unix.Unshare(unix.CLONE_NEWNET))
}

func open(t *testing.T) *Controller {
	t.Helper()
	c, err := New(Options{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return c
}

// holds asserts that the kernel has exactly what the plan for cfg says.
func holds(t *testing.T, c *Controller, cfg Config, msg ...any) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	want, err := newPlan(cfg, c.plan.env)
	require.NoError(t, err)
	_, elements, err := readAll(c.nft, c.table)
	require.NoError(t, err)
	got := &plan{}
	for s := range elements {
		got.elements[s] = map[string]*element{}
		for k, v := range elements[s] {
			got.elements[s][k] = &element{value: v}
		}
	}
	require.Equal(t, want.dump(), got.dump(), msg...)
}

// TestApplyRandom goes from one random configuration to another and compares
// the kernel with a plan made afresh after each.
func TestApplyRandom(t *testing.T) {
	inNamespace(t, "nft")
	c := open(t)
	ctx := context.Background()
	var last Config
	for step := range 150 * *rounds {
		r := rand.New(rand.NewPCG(uint64(step), 77))
		next := last.Clone()
		switch n := len(next.Forwards); {
		case r.IntN(3) == 0:
			next = randomConfig(r, r.IntN(30))
		case n > 0 && r.IntN(2) == 0:
			i := r.IntN(n)
			next.Forwards = slices.Delete(next.Forwards, i, i+1)
		default:
			next.Forwards = append(next.Forwards, randomForward(r))
		}
		if next.Validate() != nil {
			require.ErrorIs(t, c.Apply(ctx, next), ErrInvalid)
			continue
		}
		require.NoError(t, c.Apply(ctx, next), "step %d", step)
		holds(t, c, next, "step %d", step)
		last = next
		switch r.IntN(10) {
		case 0: // another program makes a generation
			require.NoError(t, exec.Command("nft", "add table ip other; delete table ip other").Run())
		case 1: // a new process takes over
			require.NoError(t, c.Close())
			c = open(t)
		}
	}
}

// TestApplyRepairs breaks our table in many ways; the next Apply mends it.
func TestApplyRepairs(t *testing.T) {
	inNamespace(t, "nft")
	c := open(t)
	ctx, cfg := context.Background(), goldenConfig()
	require.NoError(t, c.Apply(ctx, cfg))
	list := func() string {
		out, err := exec.Command("nft", "list", "ruleset").CombinedOutput()
		require.NoError(t, err, string(out))
		return string(out)
	}
	want := list()
	gen := c.knownGeneration()
	require.NoError(t, c.Apply(ctx, cfg))
	require.Equal(t, gen, c.knownGeneration(), "applying the same again wrote something")
	require.NoError(t, c.Close())
	c = open(t)
	require.NoError(t, c.Apply(ctx, cfg))
	require.Equal(t, gen, c.knownGeneration(), "another process that applies the same wrote something")
	for name, script := range map[string]string{
		"everything flushed":  "flush ruleset",
		"a chain flushed":     "flush chain inet selfstead forward",
		"an element deleted":  "delete element inet selfstead target4 { 10.0.3.5 . 8080 }",
		"an element added":    "add element inet selfstead forward4 { 203.0.113.7 . 99 : 10.0.3.5 . 22 }",
		"a set flushed":       "flush map inet selfstead allowed4",
		"a rule added":        "insert rule inet selfstead prerouting counter",
		"a chain added":       "add chain inet selfstead mine { type filter hook input priority 0; policy drop; }; add rule inet selfstead mine accept",
		"a set added":         "add set inet selfstead mine { type ipv4_addr; }",
		"the table recreated": "delete table inet selfstead; add table inet selfstead; add set inet selfstead forward4 { type ipv4_addr; }",
	} {
		out, err := exec.Command("nft", script).CombinedOutput()
		require.NoError(t, err, "%s: %s", name, out)
		require.NoError(t, c.Apply(ctx, cfg), name)
		if got := list(); name != "the table recreated" && name != "everything flushed" && !strings.Contains(name, "recreated") {
			require.Equal(t, elementsOf(want), elementsOf(got), name)
		}
		holds(t, c, cfg, name)
	}
	require.NoError(t, exec.Command("nft", "add table ip foreign; add chain ip foreign keep { type nat hook prerouting priority -100; }").Run())
	require.NoError(t, c.CleanUp(ctx))
	require.NotContains(t, list(), "selfstead")
	require.Contains(t, list(), "chain keep", "another program's table is gone")
	require.NoError(t, c.CleanUp(ctx), "cleaning up twice")
	require.NoError(t, c.Apply(ctx, cfg), "after CleanUp")
	holds(t, c, cfg)
}

// elementsOf brings a listing into an order that does not depend on hashes.
func elementsOf(listing string) []string {
	words := strings.FieldsFunc(listing, func(r rune) bool { return r == ',' || r == '\n' || r == '{' || r == '}' })
	for i := range words {
		words[i] = strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(words[i]), "elements ="))
	}
	slices.Sort(words)
	return slices.DeleteFunc(words, func(s string) bool { return s == "" })
}

// TestForwardsReadBack applies and lists through another controller.
func TestForwardsReadBack(t *testing.T) {
	inNamespace(t)
	c := open(t)
	ctx := context.Background()
	for seed := range uint64(20) {
		cfg := randomConfig(rand.New(rand.NewPCG(seed, 1)), 20)
		require.NoError(t, c.Apply(ctx, cfg))
		list, err := open(t).Forwards(ctx)
		require.NoError(t, err)
		// What is listed makes the same elements, whatever its words.
		holds(t, c, Config{Forwards: list}, "seed %d", seed)
		require.Len(t, list, len(cfg.Forwards))
	}
}

// TestConflict lets another program change its rules all the time.
func TestConflict(t *testing.T) {
	inNamespace(t, "nft")
	c := open(t)
	ctx := context.Background()
	stop, done := make(chan struct{}), make(chan error, 1)
	cmd := exec.Command("nft", "-i")
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	go func() {
		defer in.Close()
		for {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			if _, err := in.Write([]byte("add table ip busy\ndelete table ip busy\n")); err != nil {
				done <- err
				return
			}
		}
	}()
	for step := range 8 {
		cfg := randomConfig(rand.New(rand.NewPCG(uint64(step), 5)), 25)
		require.NoError(t, c.Apply(ctx, cfg), "step %d", step)
	}
	close(stop)
	require.NoError(t, cmd.Process.Kill()) // it has much more to do
	<-done
	require.Error(t, cmd.Wait())
	last := randomConfig(rand.New(rand.NewPCG(7, 5)), 25)
	require.NoError(t, c.Apply(ctx, last))
	holds(t, c, last)
}

// TestCancelled asks with a context that has ended: the old state stays.
func TestCancelled(t *testing.T) {
	inNamespace(t)
	c := open(t)
	cfg := goldenConfig()
	require.NoError(t, c.Apply(context.Background(), cfg))
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	require.ErrorIs(t, c.Apply(ctx, Config{}), context.Canceled)
	holds(t, c, cfg)
	require.NoError(t, c.Close())
	require.ErrorIs(t, c.Apply(context.Background(), cfg), ErrClosed)
	require.NoError(t, c.Close(), "closing twice")
}

// TestSmallSendBuffer has no more room than an unprivileged user gets: a new
// table is filled in several transactions, and a change that does not fit is
// refused while the old state stays.
func TestSmallSendBuffer(t *testing.T) {
	inNamespace(t)
	c := open(t)
	require.NoError(t, unix.SetsockoptInt(c.nft.fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 64<<10))
	n, err := unix.GetsockoptInt(c.nft.fd, unix.SOL_SOCKET, unix.SO_SNDBUF)
	require.NoError(t, err)
	c.nft.limit = n / 2
	big := func(port uint16) (cfg Config) {
		for i := range 4000 {
			cfg.Forwards = append(cfg.Forwards, Forward{
				Name: fmt.Sprint(i), Source: netip.AddrPortFrom(ad("203.0.113.7"), 2000+uint16(i)),
				Target: Target{ad("10.0.3.5"), 24, port}, AllowFrom: []netip.Prefix{px("192.168.0.0/16")},
			})
		}
		return cfg
	}
	ctx := context.Background()
	require.NoError(t, c.Apply(ctx, big(80)))
	holds(t, c, big(80))
	err = c.Apply(ctx, big(81))
	require.ErrorIs(t, err, unix.EMSGSIZE)
	require.ErrorContains(t, err, "send buffer")
	holds(t, c, big(80))
}

// TestManyElements fills a new table with a set that is too large to be dumped.
func TestManyElements(t *testing.T) {
	inNamespace(t, "nft")
	c := open(t)
	ctx := context.Background()
	var cfg Config
	for i := range manyElements/500 + 1 {
		src := netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, 0, 113, byte(i)}), 1000)
		cfg.Forwards = append(cfg.Forwards, Forward{Name: fmt.Sprint(i), Source: src, Count: 500, Target: Target{Addr: ad("10.0.3.5"), Prefix: 24, Port: 2000}})
	}
	require.NoError(t, c.Apply(ctx, cfg))
	gen := c.knownGeneration()
	require.NoError(t, c.Apply(ctx, cfg))
	require.Equal(t, gen, c.knownGeneration(), "it was all there")
	require.NoError(t, exec.Command("nft", "delete element inet selfstead forward4 { 203.0.113.7 . 1007 }").Run())
	require.NoError(t, c.Apply(ctx, cfg))
	holds(t, c, cfg)
}

// TestErrors checks what callers branch on.
func TestErrors(t *testing.T) {
	t.Parallel()
	err := error(&KernelError{Op: "add rule", Object: "x", Detail: "no", Err: unix.EOPNOTSUPP})
	require.ErrorIs(t, err, ErrNotSupported)
	require.ErrorIs(t, err, unix.EOPNOTSUPP)
	require.EqualError(t, err, "nat: add rule x: no: operation not supported")
	require.NotErrorIs(t, &KernelError{Err: unix.EPERM}, ErrNotSupported)
	require.ErrorIs(t, &KernelError{Err: unix.EPERM}, fs.ErrPermission)
	_, err = New(Options{Table: "a\"b"})
	require.ErrorIs(t, err, ErrInvalid)
}

// TestGuardComesFirst asks what stands when route_localnet is about to be
// switched on, where a process may be killed: the guard is in force.
func TestGuardComesFirst(t *testing.T) {
	inNamespace(t, "nft", "ip")
	for _, args := range []string{"link add br0 type bridge", "addr add 10.0.3.1/24 dev br0", "link set br0 up"} {
		require.NoError(t, exec.Command("ip", strings.Fields(args)...).Run())
	}
	loop := Config{Forwards: []Forward{{Name: "loop", Source: ap("127.0.0.1:5000"), Target: Target{ad("10.0.3.5"), 24, 80}}}}
	for name, before := range map[string]Config{"no table": {}, "forwards of another process": goldenConfig()} {
		c := open(t)
		ctx := context.Background()
		require.NoError(t, c.CleanUp(ctx))
		if len(before.Forwards) > 0 {
			require.NoError(t, c.Apply(ctx, before))
			require.NoError(t, exec.Command("nft", "flush chain inet selfstead guard").Run())
		}
		require.NoError(t, c.Close()) // one controller a table
		d := open(t)
		require.NoError(t, d.loadRecords(), name)
		require.NoError(t, d.note(setLocalnet, 2, "br0"), name)
		out, err := exec.Command("nft", "list", "chain", "inet", "selfstead", "guard").CombinedOutput()
		require.NoError(t, err, "%s: %s", name, out)
		require.Equal(t, 1, strings.Count(string(out), "ip daddr 127.0.0.0/8 drop"), name)
		require.NoError(t, d.Apply(ctx, loop), name)
		holds(t, d, loop, name)
		require.NoError(t, d.CleanUp(ctx), name)
	}
}

// TestPutBack has another program flush all rules, and tamper with our table in
// several ways, while the controller is open: everything comes back by itself,
// and the log says what was found.
func TestPutBack(t *testing.T) {
	inNamespace(t, "nft", "ip")
	for _, args := range []string{"link add br0 type bridge", "addr add 10.0.3.1/24 dev br0", "link set br0 up"} {
		require.NoError(t, exec.Command("ip", strings.Fields(args)...).Run())
	}
	found := make(chan string, 10)
	c, err := New(Options{Logger: slog.New(logHook{func(msg string) {
		if strings.Contains(msg, "putting it back") {
			found <- msg
		}
	}})})
	require.NoError(t, err)
	defer c.Close()
	ctx, cfg := context.Background(), goldenConfig()
	require.NoError(t, c.Apply(ctx, cfg))
	for _, script := range []string{
		"flush ruleset",
		"delete table inet selfstead",
		"flush chain inet selfstead prerouting",
		"flush chain inet selfstead forward",
		"delete element inet selfstead target4 { 10.0.3.5 . 8080 }",
		"add element inet selfstead forward4 { 203.0.113.7 . 99 : 10.0.3.5 . 22 }",
		"insert rule inet selfstead forward accept",
		"add chain inet selfstead mine { type filter hook forward priority -5; policy drop; }",
	} {
		out, err := exec.Command("nft", script).CombinedOutput()
		require.NoError(t, err, "%s: %s", script, out)
		select {
		case <-found:
		case <-time.After(20 * time.Second):
			t.Fatalf("%s: nothing was noticed", script)
		}
		holds(t, c, cfg, script) // waits for the repair
		require.NotZero(t, c.knownGeneration(), script)
		out, err = exec.Command("nft", "list", "set", "inet", "selfstead", setLocalnet).CombinedOutput()
		require.NoError(t, err, script)
		require.Contains(t, string(out), `"br0"`, "%s: what is noted about the links", script)
	}
	// Another program's own table is none of our business.
	gen := c.knownGeneration()
	require.NoError(t, exec.Command("nft", "add table ip other").Run())
	require.Eventually(t, func() bool { return c.knownGeneration() > gen }, 20*time.Second, 5*time.Millisecond, "the table was looked at")
	require.Empty(t, found)
	// An Apply afterwards has nothing to do.
	gen = c.knownGeneration()
	require.NoError(t, c.Apply(ctx, cfg))
	require.Equal(t, gen, c.knownGeneration())
}

func (c *Controller) knownGeneration() uint32 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.gen
}

// kernelGeneration asks the kernel, by the socket that the monitor uses too.
func (c *Controller) kernelGeneration(t *testing.T) uint32 {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	gen, err := c.nft.generation(nil, nil)
	require.NoError(t, err)
	return gen
}

// TestKilledWhileReplacing stops in the middle of the replacement of sets that
// have another shape, where a process may be killed; twice, so that the names
// on the way are in use.
func TestKilledWhileReplacing(t *testing.T) {
	inNamespace(t, "nft")
	cfg := goldenConfig()
	run := func(args ...string) string {
		out, err := exec.Command("nft", args...).CombinedOutput()
		require.NoError(t, err, "%v: %s", args, out)
		return string(out)
	}
	run("-f", "testdata/older.nft")
	for _, stage := range stages {
		c := open(t)
		c.mu.Lock()
		env, err := readEnvironment(c.route)
		require.NoError(t, err)
		_, err = c.prepare(cfg, env)
		require.NoError(t, err)
		require.NoError(t, c.loadRecords())
		w, err := c.difference(false, 0)
		require.NoError(t, err)
		require.True(t, w.rebuild)
		_, err = c.write(w)
		require.ErrorIs(t, err, errMoved)
		require.Contains(t, run("list", "table", "inet", "selfstead"), "@forward4"+stage)
		c.mu.Unlock()
		require.NoError(t, c.Close())
		run("add set inet selfstead forward4 { type ipv4_addr; }") // in the way again
	}
	c := open(t)
	require.NoError(t, c.Apply(context.Background(), cfg))
	holds(t, c, cfg)
	list := run("list", "table", "inet", "selfstead")
	require.NotContains(t, list, stages[0])
	require.NotContains(t, list, stages[1])
}
