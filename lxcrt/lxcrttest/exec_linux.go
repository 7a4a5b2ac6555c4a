package lxcrttest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/selfstead/selfstead/lxcrt"
)

func testExec(t *testing.T, f Factory) {
	l, ctx := f(t), Context(t)
	c := l.Start(l.Spec(""))
	var out, errs bytes.Buffer
	p, err := c.Exec(ctx, lxcrt.ExecSpec{Argv: []string{"sh", "-c", "cat; echo to-err >&2; id -u; id -G; pwd; env | sort; exit 9"},
		Env: []string{"PATH=/bin", "A=b c"}, User: "alice", Dir: "/etc", Stdin: strings.NewReader("to-in\n"), Stdout: &out, Stderr: &errs})
	must(t, err)
	st, err := p.Wait()
	must(t, err)
	equal(t, st, lxcrt.ExitStatus{Code: 9, Known: true})
	equal(t, errs.String(), "to-err\n")
	equal(t, out.String(), "to-in\n1000\n1000 44\n/etc\nA=b c\nPATH=/bin\nPWD=/etc\nSHLVL=1\n")
	again, err := p.Wait()
	must(t, err)
	equal(t, again, st)

	for user, want := range map[string]string{"": "0 0", "1000": "1000 1000", "1234:44": "1234 44", "alice:video": "1000 44", "4321": "4321 0"} {
		out.Reset()
		p, err := c.Exec(ctx, lxcrt.ExecSpec{Argv: []string{"/bin/sh", "-c", "echo $(/bin/id -u) $(/bin/id -g)"}, User: user, Stdout: &out})
		must(t, err)
		if _, err := p.Wait(); err != nil {
			t.Error(err)
		}
		equal(t, strings.TrimSpace(out.String()), want)
	}
	for _, s := range []lxcrt.ExecSpec{
		{Argv: []string{"/bin/nothing"}},
		{Argv: []string{"nothing"}},
		{Argv: []string{"/bin/true"}, User: "nobody-of-that-name"},
		{Argv: []string{"/bin/true"}, User: "alice:no-such-group"},
		{Argv: []string{"/bin/true"}, Dir: "/no/such/folder"},
	} {
		if _, err := c.Exec(ctx, s); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%+v: %v", s, err)
		}
	}
	_, err = c.Exec(ctx, lxcrt.ExecSpec{})
	is(t, err, lxcrt.ErrInvalid)

	// A context that ends in the moment in which the program begins: either it
	// does not, or it lives on.
	for range 100 {
		brief, end := context.WithCancel(ctx)
		in, feed, err := os.Pipe()
		must(t, err)
		hear, say, err := os.Pipe()
		must(t, err)
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_, _ = hear.Read(make([]byte, 1))
			end()
		}()
		p, err := c.Exec(brief, lxcrt.ExecSpec{Argv: []string{"/bin/sh", "-c", "echo; read -r line; exit 3"}, Stdin: in, Stdout: say})
		say.Close()
		in.Close()
		<-ended
		feed.Close()
		if err != nil {
			is(t, err, context.Canceled)
		} else {
			st, err := p.Wait()
			must(t, err)
			equal(t, st, lxcrt.ExitStatus{Code: 3, Known: true})
		}
		hear.Close()
	}

	// Signals reach the program, and its end is told as it was.
	p, err = c.Exec(ctx, lxcrt.ExecSpec{Argv: []string{"/bin/sleep", "1000"}})
	must(t, err)
	must(t, p.Signal(unix.SIGTERM))
	st, err = p.Wait()
	must(t, err)
	equal(t, st, lxcrt.ExitStatus{Code: -1, Signal: unix.SIGTERM, Known: true})
	// Killed from outside, the process that stands for it takes it along.
	p, err = c.Exec(ctx, lxcrt.ExecSpec{Argv: []string{"/bin/sleep", "999"}, User: "alice"})
	must(t, err)
	b, err := os.ReadFile("/proc/" + itoa(p.PID()) + "/stat")
	must(t, err)
	stand, err := strconv.Atoi(strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))[1])
	must(t, err)
	must(t, unix.Kill(stand, unix.SIGKILL))
	st, err = p.Wait()
	must(t, err)
	equal(t, st.Signal, unix.SIGKILL)
	eventually(t, func() bool { _, st := Sh(t, c, "ps | grep -q '[s]leep 999$'"); return st.Code != 0 })
	// It is a process of the container: seen there, in its cgroups, and gone with it.
	r, w, err := os.Pipe()
	must(t, err)
	defer r.Close()
	p, err = c.Exec(ctx, lxcrt.ExecSpec{Argv: []string{"/bin/sh", "-c", "echo on; exec sleep 1000"}, Env: []string{"PATH=/bin"}, Stdout: w})
	must(t, err)
	w.Close()
	buf := make([]byte, 3)
	_, err = io.ReadFull(r, buf)
	must(t, err)
	eventually(t, func() bool { _, st := Sh(t, c, "ps | grep -q '[s]leep 1000$'"); return st.Code == 0 })
	if b, err := os.ReadFile("/proc/" + itoa(p.PID()) + "/cgroup"); err != nil || strings.Count(string(b), "/"+l.Options.CgroupParent+"/"+c.Name()+"/payload") != strings.Count(string(b), "\n") {
		t.Errorf("not in the container's cgroups (%v): %s", err, b)
	}
	must(t, c.Stop(ctx, lxcrt.StopOptions{Grace: -1}))
	st, err = p.Wait()
	must(t, err)
	equal(t, st.Signal, unix.SIGKILL)
}

func testTerminal(t *testing.T, f Factory) {
	l, ctx := f(t), Context(t)
	c := l.Start(l.Spec(""))
	p, err := c.Exec(ctx, lxcrt.ExecSpec{Argv: []string{"/bin/sh", "-c", "tty; stty size; read x; echo got $x; stty size; exit 3"},
		Env: []string{"PATH=/bin"}, TTY: true, Size: lxcrt.WindowSize{Rows: 33, Cols: 77}})
	must(t, err)
	var text strings.Builder
	buf := make([]byte, 256)
	for !strings.Contains(text.String(), "33 77") {
		n, err := p.TTY().Read(buf)
		must(t, err)
		text.Write(buf[:n])
	}
	must(t, p.Resize(lxcrt.WindowSize{Rows: 10, Cols: 20}))
	_, err = p.TTY().WriteString("word\n")
	must(t, err)
	for { // the end of a terminal reads as an error
		n, err := p.TTY().Read(buf)
		text.Write(buf[:n])
		if err != nil {
			break
		}
	}
	st, err := p.Wait()
	must(t, err)
	equal(t, st.Code, 3)
	got := strings.ReplaceAll(text.String(), "\r", "")
	if !strings.HasPrefix(got, "/dev/pts/") || !strings.Contains(got, "got word\n10 20\n") {
		t.Errorf("terminal said %q", got)
	}
}
