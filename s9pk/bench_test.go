//go:build linux

package s9pk_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
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

// BenchmarkVerify proves all bodies, against b3sum on one thread over the same
// file; run it with -cpu 1,2.
func BenchmarkVerify(b *testing.B) {
	dir := b.TempDir()
	root, _ := benchTree(b, dir)
	path := filepath.Join(dir, "x.s9pk")
	if err := s9pk.WriteFile(context.Background(), path, root, s9pktest.Key("bench"), s9pk.WriteOptions{}); err != nil {
		b.Fatal(err)
	}
	a, err := s9pk.OpenFile(path, s9pk.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer a.Close()
	race(b, a.Size(), "x-b3sum", func() error { return a.Verify(context.Background(), nil) }, func() error { return nil }, "b3sum", "--num-threads", "1", path)
	b.ReportMetric(peakRSS(b), "peak-MiB")
}

// peakRSS is the most memory this process ever had resident.
func peakRSS(b *testing.B) float64 {
	b.Helper()
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	_, rest, ok := bytes.Cut(text, []byte("VmHWM:"))
	if !ok {
		return 0
	}
	kib, err := strconv.ParseFloat(string(bytes.Fields(rest)[0]), 64)
	if err != nil {
		b.Fatal(err)
	}
	return kib / 1024
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
