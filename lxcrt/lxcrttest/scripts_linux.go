package lxcrttest

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"strings"

	"golang.org/x/sys/unix"
)

// script is a program of the suite, once for a shell and once for the fake.
type script struct {
	sh  string
	run ProgramFunc
}

// until is a program that says so, and ends with a code when it gets a signal.
func until(sig unix.Signal, code int) ProgramFunc {
	return func(ctx context.Context, p *FakeProcess) int {
		ch := p.Notify(sig)
		fmt.Fprintln(p.Stdout, "ready")
		select {
		case <-ch:
			return code
		case <-ctx.Done():
			return 1
		}
	}
}

const forever = "while :; do sleep 1000 & wait $!; done"

var scripts = map[string]script{
	"sleep":    {"trap 'exit 0' TERM; " + forever, until(unix.SIGTERM, 0)},
	"ready":    {"trap 'exit 4' TERM; echo ready; " + forever, until(unix.SIGTERM, 4)},
	"usr1":     {"trap 'exit 5' USR1; echo ready; " + forever, until(unix.SIGUSR1, 5)},
	"stubborn": {"trap '' TERM; while :; do sleep 1000; done", func(ctx context.Context, _ *FakeProcess) int { <-ctx.Done(); return 1 }},
	"exit 0":   {"exit 0", func(context.Context, *FakeProcess) int { return 0 }},
	"exit 7":   {"exit 7", func(context.Context, *FakeProcess) int { return 7 }},
	"exit 255": {"exit 255", func(context.Context, *FakeProcess) int { return 255 }},
	"streams": {"cat; echo to-err >&2; pwd; echo $A; id -u; id -g; exit 9", func(_ context.Context, p *FakeProcess) int {
		_, _ = io.Copy(p.Stdout, p.Stdin)
		fmt.Fprintln(p.Stderr, "to-err")
		fmt.Fprintf(p.Stdout, "%s\n%s\n%d\n%d\n", p.Dir, p.Getenv("A"), p.UID, p.GID)
		return 9
	}},
	"ids": {"echo $(id -u) $(id -g)", func(_ context.Context, p *FakeProcess) int {
		fmt.Fprintln(p.Stdout, p.UID, p.GID)
		return 0
	}},
	"terminal": {"stty size; read x; echo got $x; stty size; exit 3", func(_ context.Context, p *FakeProcess) int {
		fmt.Fprintln(p.Stdout, p.Size().Rows, p.Size().Cols)
		line, _ := bufio.NewReader(p.Stdin).ReadString('\n')
		fmt.Fprintln(p.Stdout, "got", strings.TrimSpace(line))
		fmt.Fprintln(p.Stdout, p.Size().Rows, p.Size().Cols)
		return 3
	}},
	"note": {"echo kept >/root/note", func(_ context.Context, p *FakeProcess) int {
		p.Files.Write("/root/note", []byte("kept\n"))
		return 0
	}},
	"read note": {"cat /root/note", func(_ context.Context, p *FakeProcess) int {
		b, ok := p.Files.Read("/root/note")
		if !ok {
			return 1
		}
		_, _ = p.Stdout.Write(b)
		return 0
	}},
	"talk": {`trap 'echo bye >&2; exit 0' TERM; echo one; echo "tw\"o" >&2; printf 'three\n' >/dev/console; printf 'a\377b\n'; echo ready; ` + forever,
		func(ctx context.Context, p *FakeProcess) int {
			ch := p.Notify(unix.SIGTERM)
			fmt.Fprintln(p.Stdout, "one")
			fmt.Fprintln(p.Stderr, `tw"o`)
			fmt.Fprintln(p.Console, "three")
			fmt.Fprint(p.Stdout, "a\xffb\n")
			fmt.Fprintln(p.Stdout, "ready")
			select {
			case <-ch:
				fmt.Fprintln(p.Stderr, "bye")
			case <-ctx.Done():
			}
			return 0
		}},
	"count": {"i=0; while [ $i -lt 5000 ]; do echo line $i of many that fill a file to its end; i=$((i+1)); done; printf 'no end'",
		func(_ context.Context, p *FakeProcess) int {
			for i := range 5000 {
				fmt.Fprintf(p.Stdout, "line %d of many that fill a file to its end\n", i)
			}
			fmt.Fprint(p.Stdout, "no end")
			return 0
		}},
}
