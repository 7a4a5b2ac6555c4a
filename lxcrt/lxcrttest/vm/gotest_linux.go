package vm

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// Target is a package whose tests are to run in a machine.
type Target struct {
	Package string // as the Go tool takes it
	Run     string // -test.run; empty means all
	Skip    string // -test.skip
}

// ParseTarget reads "package", "package=run" or "package=run!skip".
func ParseTarget(s string) Target {
	pkg, rest, _ := strings.Cut(s, "=")
	run, skip, _ := strings.Cut(rest, "!")
	return Target{Package: pkg, Run: run, Skip: skip}
}

// expectations are what a machine can be asked to have, each as a script.
var expectations = map[string]string{
	"cgroup2":   `test "$(stat -fc %T /sys/fs/cgroup)" = cgroup2fs && grep -qw memory /sys/fs/cgroup/cgroup.controllers && grep -qw io /sys/fs/cgroup/cgroup.controllers`,
	"apparmor":  `grep -qx Y /sys/module/apparmor/parameters/enabled && test -x /sbin/apparmor_parser && test -d /sys/kernel/security/apparmor`,
	"wireguard": `modprobe wireguard && ip link add vmprobe type wireguard && ip link del vmprobe`,
	"psi":       `test -r /proc/pressure/memory`,
	"linux6.1":  `uname -r | grep -q '^6\.1\.'`,
}

// TestOptions tune Test.
type TestOptions struct {
	Targets []Target
	// Expect names what the machine has to have ("apparmor", "cgroup2", "linux6.1",
	// "psi", "wireguard"): that is looked at first, and the tests read it in
	// VM_EXPECT, so that none passes by taking another way.
	Expect []string
	// Modules of the kernel are loaded first, which a test does not do by itself
	// because it may not change the machine it runs on.
	Modules []string
	Env     []string
	// Timeout is for the tests of one package; 0 means 5 minutes.
	Timeout time.Duration
	Machine Options // Image has to be set
	Output  io.Writer
	Verbose bool // print what the tests print, also when they pass
}

// ErrFailed: a test failed, or was skipped, which here is the same.
var ErrFailed = errors.New("vm: tests failed")

// Test builds the test binaries of the targets, with cgo as it is set, boots a
// machine with the module's folder and them, and runs one after the other, each
// in its package's folder, which is read-only. Tests run as root with CI=true; a
// skipped one is a failure, since only what needs the machine is worth running
// there. It returns an error wrapping ErrFailed when a test failed.
func Test(ctx context.Context, o TestOptions) (err error) {
	if o.Timeout == 0 {
		o.Timeout = 5 * time.Minute
	}
	if o.Output == nil {
		o.Output = io.Discard
	}
	for _, e := range o.Expect {
		if expectations[e] == "" {
			return fmt.Errorf("%w: to expect %q of a machine", ErrNotSupported, e)
		}
	}
	stage, err := newWorkDir(o.Machine.Temp)
	if err != nil {
		return fmt.Errorf("vm: %w", err)
	}
	defer func() {
		if e := stage.remove(); e != nil {
			err = errors.Join(err, fmt.Errorf("vm: %w", e))
		}
	}()
	root, err := goTool(ctx, "list", "-m", "-f", "{{.Dir}}")
	if err != nil {
		return err
	}
	o.Machine.Shares = append(slices.Clone(o.Machine.Shares), Share{root, sourceDir}, Share{stage.path, binaryDir})

	// The machine boots while the binaries are built, unless they do not build.
	var wait sync.WaitGroup
	var dirs []string
	var buildErr error
	booting, giveUp := context.WithCancel(ctx)
	defer giveUp()
	wait.Go(func() {
		if dirs, buildErr = buildTests(ctx, stage.path, root, o.Targets); buildErr != nil {
			giveUp()
		}
	})
	began := time.Now()
	m, err := Start(booting, o.Machine)
	up := time.Since(began)
	wait.Wait()
	if buildErr != nil {
		err = buildErr
	}
	if err != nil {
		if m != nil {
			err = errors.Join(err, m.Close())
		}
		return err
	}
	fmt.Fprintf(o.Output, "vm: Linux %s, up after %.1fs, accelerated: %v\n", m.Kernel(), up.Seconds(), Accelerated())
	err = o.runAll(ctx, m, dirs)
	if oops := m.Oops(); len(oops) > 0 {
		fmt.Fprintf(o.Output, "vm: the kernel complains:\n%s\n", m.Console())
		err = errors.Join(err, fmt.Errorf("%w: the kernel complains: %s", ErrFailed, oops[0]))
	}
	err = errors.Join(err, m.Close())
	fmt.Fprintf(o.Output, "vm: done after %.1fs, %.1fs of the processors' time\n", time.Since(began).Seconds(), m.p.used.Seconds())
	return err
}

// Where the host's folders stand in the machine.
const (
	sourceDir = "/vm/src"
	binaryDir = "/vm/tests"
)

func goTool(ctx context.Context, args ...string) (string, error) {
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("vm: go %s: %w: %s", args[0], err, bytes.TrimSpace(stderr.Bytes()))
	}
	return strings.TrimSpace(string(out)), nil
}

// buildTests builds one binary a target, named by its number, and returns the
// packages' folders in the machine.
func buildTests(ctx context.Context, stage, root string, targets []Target) ([]string, error) {
	var dirs []string
	for i, t := range targets {
		dir, err := goTool(ctx, "list", "-f", "{{.Dir}}", t.Package)
		if err != nil {
			return nil, err
		}
		rel, err := filepath.Rel(root, dir)
		if err != nil {
			return nil, err
		}
		dirs = append(dirs, path.Join(sourceDir, filepath.ToSlash(rel)))
		out := filepath.Join(stage, binaryName(i))
		if _, err := goTool(ctx, "test", "-c", "-ldflags", "-s -w", "-o", out, t.Package); err != nil {
			return nil, err
		}
		if _, err := os.Stat(out); err != nil {
			return nil, fmt.Errorf("vm: %s has no tests", t.Package)
		}
	}
	return dirs, nil
}

func binaryName(i int) string { return fmt.Sprintf("%d.test", i) }

func (o TestOptions) runAll(ctx context.Context, m *Machine, dirs []string) error {
	for _, k := range o.Modules {
		if _, err := m.Sh(ctx, "modprobe "+k); err != nil {
			return err
		}
	}
	for _, e := range o.Expect {
		if out, err := m.Sh(ctx, expectations[e]); err != nil {
			return fmt.Errorf("vm: the machine has no %s: %w: %s", e, err, out)
		}
	}
	var failed []string
	for i, t := range o.Targets {
		if err := o.runOne(ctx, m, t, binaryName(i), dirs[i]); err != nil {
			fmt.Fprintf(o.Output, "FAIL\t%s in the machine: %v\n", t.Package, err)
			failed = append(failed, t.Package)
			if errors.Is(err, ErrGone) || ctx.Err() != nil {
				fmt.Fprintf(o.Output, "vm: the end of the console:\n%s\n", m.Console())
				return fmt.Errorf("%w: %s: %w", ErrFailed, t.Package, err)
			}
		}
	}
	if len(failed) > 0 {
		return fmt.Errorf("%w: %s", ErrFailed, strings.Join(failed, ", "))
	}
	return nil
}

func (o TestOptions) runOne(ctx context.Context, m *Machine, t Target, binary, dir string) error {
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, o.Timeout+30*time.Second)
	defer cancel()
	argv := []string{path.Join(binaryDir, binary), "-test.v", "-test.timeout=" + o.Timeout.String(), "-test.run=" + t.Run}
	if t.Skip != "" {
		argv = append(argv, "-test.skip="+t.Skip)
	}
	var out bytes.Buffer
	w := io.Writer(&out)
	if o.Verbose {
		w = io.MultiWriter(o.Output, &out)
	}
	st, err := m.Run(ctx, Command{Argv: argv, Dir: dir, Stdout: w, Stderr: w,
		Env: append([]string{"CI=true", "VM_EXPECT=" + strings.Join(o.Expect, ",")}, o.Env...)})
	passed, skipped := count(out.Bytes())
	switch {
	case err != nil:
	case st.Code != 0:
		err = errors.New(st.String())
	case len(skipped) > 0:
		err = fmt.Errorf("skipped: %s", strings.Join(skipped, ", "))
	case passed == 0:
		err = errors.New("no test ran")
	}
	if err != nil {
		if !o.Verbose {
			_, _ = o.Output.Write(out.Bytes())
		}
		return err
	}
	fmt.Fprintf(o.Output, "ok  \t%s in the machine\t%.1fs\t%d tests\n", t.Package, time.Since(began).Seconds(), passed)
	return nil
}

// count reads the verdicts in what -test.v prints, those of subtests too.
func count(out []byte) (passed int, skipped []string) {
	sc := bufio.NewScanner(bytes.NewReader(out))
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		line := strings.TrimSpace(sc.Text())
		if strings.HasPrefix(line, "--- PASS: ") {
			passed++
		}
		if s, ok := strings.CutPrefix(line, "--- SKIP: "); ok {
			name, _, _ := strings.Cut(s, " ")
			skipped = append(skipped, name)
		}
	}
	return passed, skipped
}
