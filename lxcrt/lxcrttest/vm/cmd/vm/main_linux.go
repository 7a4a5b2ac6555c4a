package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/selfstead/selfstead/lxcrt/lxcrttest/vm"
)

func main() {
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	code, err := run(ctx, os.Args[1:])
	cancel()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(code)
}

// list is a flag that may be given several times.
type list []string

func (l *list) String() string     { return strings.Join(*l, ",") }
func (l *list) Set(s string) error { *l = append(*l, s); return nil }

func run(ctx context.Context, args []string) (int, error) {
	if len(args) == 0 {
		return 2, errors.New("vm: say image, test or run")
	}
	f := flag.NewFlagSet("vm "+args[0], flag.ContinueOnError)
	cache := f.String("cache", "", "folder that keeps the machine's image")
	suite := f.String("suite", "", "Debian release of the machine; none means bookworm")
	limit := f.Duration("limit", 30*time.Minute, "end everything after this long")
	expect := f.String("expect", "", "what the machine has to have: cgroup2,apparmor,wireguard,psi,linux6.1")
	modules := f.String("modules", "", "kernel modules to load before tests: a,b")
	timeout := f.Duration("timeout", 5*time.Minute, "for one package's tests")
	verbose := f.Bool("v", false, "print what passing tests print, and the console")
	boot := f.String("init", "", "the machine's PID 1; none means a small one of the kit")
	memory := f.Int64("memory", 2048, "MiB")
	var env, shares list
	f.Var(&env, "env", "NAME=VALUE for tests or the command; may be given several times")
	f.Var(&shares, "share", "HOST:PATH, a folder that the machine reads; may be given several times")
	if err := f.Parse(args[1:]); err != nil {
		return 2, err
	}
	ctx, cancel := context.WithTimeout(ctx, *limit)
	defer cancel()
	dir, err := filepath.Abs(*cache)
	if err != nil || *cache == "" {
		return 2, errors.New("vm: -cache says where the image is kept")
	}
	began := time.Now()
	image, err := vm.BuildImage(ctx, vm.ImageOptions{Cache: dir, Suite: *suite, Progress: func(s string) {
		fmt.Fprintf(os.Stderr, "vm image: %5.1fs %s\n", time.Since(began).Seconds(), s)
	}})
	if err != nil {
		return 2, err
	}
	o := vm.Options{Image: image, Init: *boot, Memory: *memory << 20}
	if *verbose {
		o.Console = os.Stderr
	}
	for _, s := range shares {
		host, inside, ok := strings.Cut(s, ":")
		if !ok {
			return 2, fmt.Errorf("vm: share %q is not HOST:PATH", s)
		}
		o.Shares = append(o.Shares, vm.Share{Host: host, Path: inside})
	}
	switch args[0] {
	case "image":
		fmt.Println(image.Root)
		return 0, nil
	case "test":
		t := vm.TestOptions{Env: env, Timeout: *timeout, Machine: o, Output: os.Stdout, Verbose: *verbose}
		comma := func(r rune) bool { return r == ',' }
		t.Expect, t.Modules = strings.FieldsFunc(*expect, comma), strings.FieldsFunc(*modules, comma)
		for _, a := range f.Args() {
			t.Targets = append(t.Targets, vm.ParseTarget(a))
		}
		if err := vm.Test(ctx, t); errors.Is(err, vm.ErrFailed) {
			return 1, err
		} else if err != nil {
			return 2, err
		}
		return 0, nil
	case "run":
		m, err := vm.Start(ctx, o)
		if err != nil {
			return 2, err
		}
		st, err := m.Run(ctx, vm.Command{Argv: f.Args(), Env: env, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr})
		if err = errors.Join(err, m.Close()); err != nil {
			return 2, err
		}
		return st.Code, nil
	}
	return 2, fmt.Errorf("vm: no command %q", args[0])
}
