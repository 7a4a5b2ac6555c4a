//go:build linux

package s9pk_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/selfstead/selfstead/s9pk"
	"github.com/selfstead/selfstead/s9pk/merkle"
	"github.com/selfstead/selfstead/s9pk/s9pktest"
)

// benchMiB is how much the large benchmarks work on; S9PK_BENCH_MIB changes it.
func benchMiB(b *testing.B) int {
	b.Helper()
	s := os.Getenv("S9PK_BENCH_MIB")
	if s == "" {
		return 512
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		b.Fatal(err)
	}
	return n
}

// benchTree writes files of random bytes: one of 3/4 of the whole, and 16 others.
func benchTree(b *testing.B, dir string) (*merkle.Directory, int64) {
	b.Helper()
	total := int64(benchMiB(b)) << 20
	r := rand.NewChaCha8([32]byte{1})
	root := merkle.NewDirectory()
	var sum int64
	put := func(name string, n int64) {
		f, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			b.Fatal(err)
		}
		buf := make([]byte, 1<<20)
		for done := int64(0); done < n; done += int64(len(buf)) {
			r.Read(buf)
			if _, err := f.Write(buf); err != nil {
				b.Fatal(err)
			}
		}
		if err := f.Close(); err != nil {
			b.Fatal(err)
		}
		src, err := s9pk.FileSource(f.Name())
		if err != nil {
			b.Fatal(err)
		}
		if _, err := root.Put(name, src); err != nil {
			b.Fatal(err)
		}
		sum += src.Size()
	}
	put("large", total*3/4)
	for i := range 16 {
		put(fmt.Sprintf("part%02d", i), total/64)
	}
	return root, sum
}

// rounds is how often race lets each side run.
const rounds = 6

// race runs ours and another program in turns, so that both see the same load,
// and reports how the best times compare: above 1 ours is faster.
func race(b *testing.B, size int64, unit string, ours func() error, prepare func() error, argv ...string) {
	b.Helper()
	_, err := exec.LookPath(argv[0])
	if err != nil {
		b.Logf("no %s here, no ratio to it", argv[0])
	}
	there := err == nil
	mine, theirs := time.Duration(1<<63-1), time.Duration(1<<63-1)
	myCPU, theirCPU := mine, theirs
	timed := func(best *time.Duration, fn func() error) {
		start := time.Now()
		if err := fn(); err != nil {
			b.Fatal(err)
		}
		*best = min(*best, time.Since(start))
	}
	command := func() error {
		cmd := exec.Command(argv[0], argv[1:]...)
		out, err := cmd.CombinedOutput()
		if err != nil {
			return fmt.Errorf("%v: %w: %s", argv, err, out)
		}
		theirCPU = min(theirCPU, cmd.ProcessState.UserTime()+cmd.ProcessState.SystemTime())
		return nil
	}
	for b.Loop() {
		for range rounds {
			before := cpuTime(b)
			timed(&mine, ours)
			myCPU = min(myCPU, cpuTime(b)-before)
			if there {
				if err := prepare(); err != nil {
					b.Fatal(err)
				}
				timed(&theirs, command)
			}
		}
	}
	b.ReportMetric(float64(mine), "ns/op")
	b.ReportMetric(float64(size)/mine.Seconds()/1e6, "MB/s")
	if there {
		b.ReportMetric(float64(theirs)/float64(mine), unit)
		b.ReportMetric(float64(theirCPU)/float64(myCPU), unit+"-cpu") // which other work on the machine disturbs less
		b.Logf("processor time: ours %v, theirs %v", myCPU, theirCPU)
	}
}

// cpuTime is what this process has used so far.
func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// verifyOnly names an archive: the test binary then proves that and does nothing
// else, so that one run can be held to certain cores and its memory be measured.
const verifyOnly = "S9PK_BENCH_VERIFY"

func TestMain(m *testing.M) {
	path := os.Getenv(verifyOnly)
	if path == "" {
		os.Exit(m.Run())
	}
	a, err := s9pk.OpenFile(path, s9pk.Options{})
	if err == nil {
		err = errors.Join(a.Verify(context.Background(), nil), a.Close())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// cores lists which cores this process may run on.
func cores(b *testing.B) []string {
	b.Helper()
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		b.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "Cpus_allowed_list:")
	var list []string
	for part := range strings.SplitSeq(strings.Fields(rest)[0], ",") {
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		from, err1 := strconv.Atoi(first)
		to, err2 := strconv.Atoi(last)
		if err := errors.Join(err1, err2); err != nil {
			b.Fatal(err)
		}
		for n := from; n <= to; n++ {
			list = append(list, strconv.Itoa(n))
		}
	}
	return list
}

// effort is what runs of one program took, the best of each.
type effort struct {
	wall, cpu time.Duration
	peak      int64 // KiB, the worst
}

// pinned runs a program that may only use the given cores.
func (e *effort) pinned(b *testing.B, cores []string, env string, argv ...string) {
	b.Helper()
	cmd := exec.Command("taskset", append([]string{"-c", strings.Join(cores, ",")}, argv...)...)
	cmd.Env = append(os.Environ(), env)
	start := time.Now()
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("%v: %v: %s", argv, err, out)
	}
	wall, cpu := time.Since(start), cmd.ProcessState.UserTime()+cmd.ProcessState.SystemTime()
	if e.wall == 0 {
		e.wall, e.cpu = wall, cpu
	}
	e.wall, e.cpu = min(e.wall, wall), min(e.cpu, cpu)
	e.peak = max(e.peak, cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss)
}

// BenchmarkVerify proves all bodies of an archive in a process of its own: held
// to one core, against b3sum held to the same core over the same file, and on two
// cores against itself on one. Above 1 ours is the faster, and two cores are.
func BenchmarkVerify(b *testing.B) {
	dir := b.TempDir()
	root, _ := benchTree(b, dir)
	path := filepath.Join(dir, "x.s9pk")
	if err := s9pk.WriteFile(context.Background(), path, root, s9pktest.Key("bench"), s9pk.WriteOptions{}); err != nil {
		b.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		b.Fatal(err)
	}
	_, err = exec.LookPath("b3sum")
	peer := err == nil
	if !peer {
		b.Log("no b3sum here, no ratio to it")
	}
	free := cores(b)
	var one, two, theirs effort
	env := verifyOnly + "=" + path
	for b.Loop() {
		for range rounds {
			one.pinned(b, free[:1], env, os.Args[0])
			if peer {
				theirs.pinned(b, free[:1], "", "b3sum", "--num-threads", "1", path)
			}
			if len(free) > 1 {
				two.pinned(b, free[:2], env, os.Args[0])
			}
		}
	}
	b.ReportMetric(float64(one.wall), "ns/op")
	b.ReportMetric(float64(info.Size())/one.wall.Seconds()/1e6, "MB/s")
	if peer {
		b.ReportMetric(float64(theirs.wall)/float64(one.wall), "x-b3sum")
		b.ReportMetric(float64(theirs.cpu)/float64(one.cpu), "x-b3sum-cpu") // which other work on the machine disturbs less
	}
	if len(free) > 1 {
		b.ReportMetric(float64(one.wall)/float64(two.wall), "x-two-cores")
	}
	b.ReportMetric(float64(max(one.peak, two.peak))/1024, "peak-MiB")
	b.Logf("one core %v (processor %v), two cores %v (%v), b3sum on one core %v (%v)", one.wall, one.cpu, two.wall, two.cpu, theirs.wall, theirs.cpu)
}

// BenchmarkWriteFile reports how fast a tree is packed, signed and synced,
// against cp and sync over the same tree.
func BenchmarkWriteFile(b *testing.B) {
	dir := b.TempDir()
	src := filepath.Join(dir, "src")
	if err := os.Mkdir(src, 0o755); err != nil {
		b.Fatal(err)
	}
	root, total := benchTree(b, src)
	dst := filepath.Join(dir, "dst")
	race(b, total, "x-cp", func() error {
		return s9pk.WriteFile(context.Background(), filepath.Join(dir, "x.s9pk"), root.Clone(), s9pktest.Key("bench"), s9pk.WriteOptions{})
	}, func() error { return os.RemoveAll(dst) }, "sh", "-c", `cp -r "$1" "$2" && sync -f "$2"`, "sh", src, dst)
}

// BenchmarkOpen opens an archive of 10,000 entries from a file.
func BenchmarkOpen(b *testing.B) {
	root := merkle.NewDirectory()
	for i := range 10_000 {
		if _, err := root.Put(fmt.Sprintf("dir%02d/file%05d", i%100, i), s9pk.Bytes([]byte(strconv.Itoa(i)))); err != nil {
			b.Fatal(err)
		}
	}
	path := filepath.Join(b.TempDir(), "many.s9pk")
	if err := s9pk.WriteFile(context.Background(), path, root, s9pktest.Key("bench"), s9pk.WriteOptions{NoSync: true}); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		a, err := s9pk.OpenFile(path, s9pk.Options{})
		if err != nil {
			b.Fatal(err)
		}
		if err := a.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkStreamVerifier proves a package that arrives in pieces of 32 KiB.
func BenchmarkStreamVerifier(b *testing.B) {
	content := make([]byte, 64<<20)
	rand.NewChaCha8([32]byte{2}).Read(content)
	pkg := s9pktest.Build(b, s9pktest.Spec{Files: map[string][]byte{"assets.squashfs": content}})
	b.SetBytes(int64(len(pkg)))
	for b.Loop() {
		sv := s9pk.NewStreamVerifier(s9pk.Options{})
		for rest := pkg; len(rest) > 0; {
			n := min(len(rest), 32<<10)
			if _, err := sv.Write(rest[:n]); err != nil {
				b.Fatal(err)
			}
			rest = rest[n:]
		}
		if _, err := sv.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
