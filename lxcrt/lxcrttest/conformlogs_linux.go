package lxcrttest

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/selfstead/selfstead/lxcrt"
	"github.com/selfstead/selfstead/lxcrt/logs"
)

func (b *bench) entries(c lxcrt.Instance) []logs.Entry {
	b.t.Helper()
	var all []logs.Entry
	for cursor := "0.0"; ; {
		page, err := logs.Open(c.LogDir(), lxcrt.LogName).Read(logs.Query{Cursor: cursor, Limit: logs.MaxLimit})
		must(b.t, err)
		if len(page.Entries) == 0 {
			return all
		}
		all, cursor = append(all, page.Entries...), page.EndCursor
	}
}

func conformLogs(t *testing.T, b *bench) {
	begin := time.Now()
	c := b.start("talk")
	b.await(c, "ready")
	must(t, c.Stop(b.ctx, lxcrt.StopOptions{}))
	// Wait returns when the last line is there.
	by := map[string][]string{}
	for _, e := range b.entries(c) {
		by[e.Stream] = append(by[e.Stream], e.Message)
		if e.Time.Before(begin.Add(-time.Second)) || e.Time.After(time.Now().Add(time.Second)) {
			t.Errorf("time %s", e.Time)
		}
	}
	equal(t, strings.Join(by[logs.Stdout], "|"), "one|a\uFFFDb|ready")
	equal(t, strings.Join(by[logs.Stderr], "|"), `tw"o|bye`)
	equal(t, strings.Join(by[logs.Console], "|"), "three")
	// The next life goes on in the same log.
	must(t, c.Start(b.ctx))
	must(t, c.Stop(b.ctx, lxcrt.StopOptions{Grace: -1}))
	if n := len(b.entries(c)); n < 6 {
		t.Errorf("%d lines after another life", n)
	}
	without := b.create(b.Spec(""))
	equal(t, without.LogDir(), "")
}

func conformRotation(t *testing.T, b *bench) {
	dir := t.TempDir()
	const lines = 5001
	c := b.create(func() lxcrt.Spec {
		s := b.Spec(scripts["count"].sh)
		s.Log = &lxcrt.Log{Dir: dir, MaxSize: 64 << 10, MaxFiles: 20}
		return s
	}())
	// Somebody follows across the rotations meanwhile.
	heard := make(chan string, 2*lines)
	follow, stop := context.WithCancel(b.ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		_ = logs.Open(dir, lxcrt.LogName).Follow(follow, "0.0", 0, func(e logs.Entry) error { heard <- e.Message; return nil })
	})
	must(t, c.Start(b.ctx))
	b.wait(c, lxcrt.ExitStatus{Known: true})
	all := b.entries(c)
	equal(t, len(all), lines)
	for i, e := range all[:lines-1] {
		if want := fmt.Sprintf("line %d of many that fill a file to its end", i); e.Message != want {
			t.Fatalf("line %d is %q", i, e.Message)
		}
	}
	equal(t, all[lines-1].Message, "no end")
	for i := range all {
		select {
		case text := <-heard:
			equal(t, text, all[i].Message)
		case <-b.ctx.Done():
			t.Fatalf("%d of %d lines were heard", i, len(all))
		}
	}
	stop()
	wg.Wait()
	// A log elsewhere stays; a small one forgets its beginning.
	must(t, c.Destroy(b.ctx))
	equal(t, len(b.entries(logAt{c, dir})), lines)
	s := b.Spec(scripts["count"].sh)
	s.Log = &lxcrt.Log{MaxSize: 64 << 10, MaxFiles: 2}
	c = b.create(s)
	must(t, c.Start(b.ctx))
	b.wait(c, lxcrt.ExitStatus{Known: true})
	kept := b.entries(c)
	if len(kept) == 0 || len(kept) > 2000 || kept[len(kept)-1].Message != "no end" {
		t.Errorf("%d lines in two small files", len(kept))
	}
}

type logAt struct {
	lxcrt.Instance
	dir string
}

func (l logAt) LogDir() string { return l.dir }
