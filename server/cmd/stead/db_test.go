package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// runDB runs `stead db` with the arguments.
func runDB(t *testing.T, stdin string, args ...string) (out, errOut string, err error) {
	t.Helper()
	var o, e bytes.Buffer
	cmd := newDBCommand()
	cmd.SetArgs(args)
	cmd.SetIn(strings.NewReader(stdin))
	cmd.SetOut(&o)
	cmd.SetErr(&e)
	cmd.SilenceUsage, cmd.SilenceErrors = true, true
	err = cmd.ExecuteContext(t.Context())
	return o.String(), e.String(), err
}

func TestDBCommands(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	db := filepath.Join(dir, "a.db")
	value := filepath.Join(dir, "value.json")
	if err := os.WriteFile(value, []byte(`[1, 2, 18446744073709551615]`), 0o600); err != nil {
		t.Fatal(err)
	}
	old := filepath.Join(dir, "old.db")
	if err := os.WriteFile(filepath.Join(dir, "EMPTY"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, stdin, args, want, fails string
		status                         int // where it fails; 0 stands for 1
	}{
		{name: "put creates", stdin: `{"a": {"<b>": 1}}`, args: "put DB  -", want: `{"id":1,"patch":[{"op":"replace","path":"","value":{"a":{"<b>":1}}}]}`},
		{name: "same again", stdin: `{"a":{"<b>":1.0}}`, args: "put DB  -"},
		{name: "put a file", args: "put DB /a/list VALUE", want: `{"id":2,"patch":[{"op":"add","path":"/a/list","value":[1,2,18446744073709551615]}]}`},
		{name: "apply", stdin: `[{"op":"test","path":"/a/list/0","value":1},{"op":"move","from":"/a/list/0","path":"/first"}]`, args: "apply DB -",
			want: `{"id":3,"patch":[{"op":"remove","path":"/a/list/0"},{"op":"add","path":"/first","value":1}]}`},
		{name: "apply that fails", stdin: `[{"op":"remove","path":"/first"},{"op":"remove","path":"/none"}]`, args: "apply DB -", fails: `/none`},
		{name: "no patch", stdin: `[{"op":"delete","path":"/first"}]`, args: "apply DB -", fails: `unknown operation "delete"`},
		{name: "no JSON", stdin: `{`, args: "put DB /x -", fails: "bad JSON"},
		{name: "parents", stdin: `1`, args: "put -p DB /x/y -", want: `{"id":4,"patch":[{"op":"add","path":"/x","value":{"y":1}}]}`},
		{name: "expect", stdin: `2`, args: "put --expect 4 DB /x/y -", want: `{"id":5,"patch":[{"op":"replace","path":"/x/y","value":2}]}`},
		{name: "expect another", stdin: `3`, args: "put --expect 4 DB /x/y -", fails: "another revision: 5, not 4", status: 3},
		{name: "expect none", stdin: `[]`, args: "apply --expect 0 DB -", fails: "another revision: 5, not 0", status: 3},
		{name: "expect and apply", stdin: `[{"op":"replace","path":"/x/y","value":1}]`, args: "apply --expect 5 DB -", want: `{"id":6,"patch":[{"op":"replace","path":"/x/y","value":1}]}`},
		{name: "refused put into none", stdin: `1`, args: "put NONE /x/y -", fails: "parent is neither"},
		{name: "refused apply to none", stdin: `[{"op":"test","path":"","value":1}]`, args: "apply NONE -", fails: "test operation failed"},
		{name: "expected of none", stdin: `1`, args: "put --expect 1 NONE  -", fails: "another revision: 0, not 1", status: 3},
		{name: "put into empty", stdin: `1`, args: "put EMPTY  -", fails: "empty"},
		{name: "watch empty", args: "watch EMPTY", fails: "empty"},
		{name: "dump", args: "dump DB", want: `{"id":6,"value":{"a":{"<b>":1,"list":[2,18446744073709551615]},"first":1,"x":{"y":1}}}`},
		{name: "dump a part", args: "dump DB /a/list/1", want: `{"id":6,"value":18446744073709551615}`},
		{name: "dump nothing", args: "dump DB /a/none", fails: "not found"},
		{name: "check", args: "check DB", want: "sound at revision 6: a snapshot of revision 0 and 6 revisions"},
		{name: "compact", args: "compact DB"},
		{name: "check again", args: "check DB", want: "sound at revision 6: a snapshot of revision 6 and 0 revisions"},
		{name: "export", args: "export DB OLD"},
		{name: "dump of StartOS", args: "dump OLD /a/list/1", want: `{"id":6,"value":18446744073709551615}`},
		{name: "check of StartOS", args: "check OLD", want: "a StartOS database at revision 6, 0 patches"},
		{name: "put into StartOS", stdin: "1", args: "put OLD /x -", fails: "only read"},
		{name: "watch of StartOS", args: "watch OLD", fails: `is a StartOS database, which is only read; "stead db import" makes one of ours from it`},
		{name: "import", args: "import OLD NEW"},
		{name: "dump of the import", args: "dump NEW /first", want: `{"id":6,"value":1}`},
		{name: "import over one", args: "import OLD NEW", fails: "exists"},
		{name: "import of ours", args: "import DB NEW2", fails: "not a StartOS database"},
		{name: "dump of none", args: "dump NONE", fails: "no such file"},
		{name: "compact of none", args: "compact NONE", fails: "no such file"},
	} {
		words := strings.Split(c.args, " ")
		for i, w := range words {
			switch w {
			case "DB":
				words[i] = db
			case "VALUE":
				words[i] = value
			case "OLD":
				words[i] = old
			case "NEW", "NEW2", "NONE", "EMPTY":
				words[i] = filepath.Join(dir, w)
			}
		}
		out, _, err := runDB(t, c.stdin, words...)
		switch {
		case c.fails != "":
			if err == nil || !strings.Contains(err.Error(), c.fails) {
				t.Errorf("%s: %v, want an error with %q", c.name, err, c.fails)
			}
			var coded interface{ ExitCode() int }
			status := 1
			if errors.As(err, &coded) {
				status = coded.ExitCode()
			}
			if status != max(1, c.status) {
				t.Errorf("%s: exit status %d", c.name, status)
			}
		case err != nil:
			t.Errorf("%s: %v", c.name, err)
		case !strings.HasPrefix(out, c.want) || (c.want == "") != (out == ""):
			t.Errorf("%s: %q, want %q", c.name, out, c.want)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "NONE")); err == nil {
		t.Error("a command that failed made a database")
	}
}

// watch shows what other processes do to the file.
func TestDBWatch(t *testing.T) {
	t.Parallel()
	db := filepath.Join(t.TempDir(), "a.db")
	if _, _, err := runDB(t, `{"a":1,"b":2}`, "put", db, "", "-"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r, w := io.Pipe()
	cmd := newDBCommand()
	cmd.SetArgs([]string{"watch", db, "/a"})
	cmd.SetOut(w)
	cmd.SilenceUsage, cmd.SilenceErrors = true, true
	done := make(chan error, 1)
	go func() {
		err := cmd.ExecuteContext(ctx)
		w.CloseWithError(err)
		done <- err
	}()
	dec := json.NewDecoder(r)
	expect := func(want string) {
		t.Helper()
		var got json.RawMessage
		if err := dec.Decode(&got); err != nil {
			t.Fatal(err)
		}
		if string(got) != want {
			t.Fatalf("heard %s, want %s", got, want)
		}
	}
	expect(`{"id":1,"value":1}`)
	for _, put := range [][2]string{{"/b", "5"}, {"/a", "7"}} {
		if _, _, err := runDB(t, put[1], "put", db, put[0], "-"); err != nil {
			t.Fatal(err)
		}
	}
	expect(`{"id":3,"patch":[{"op":"replace","path":"","value":7}]}`)
	cancel()
	if err := <-done; err == nil {
		t.Error("watch ended without the interruption")
	}
}
