package main

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

// A bar is one promise: measure returns what was found, and whether it holds.
type bar struct {
	name, promise string
	measure       func(b *bench) (found string, holds bool, err error)
}

type bench struct {
	dir  string
	time time.Duration // for each side
}

var bars = []bar{
	{"single", "durable single-writer updates: at least 0.9 of a bare append and fdatasync of the same bytes", single},
	{"group", "64 writers: at least 8 times one, ahead of bbolt Batch and SQLite WAL with full sync", group},
	{"leaf", "a leaf of a 1.6 MB document: within 1.2 times of the same in 16 KB", leaf},
	{"others", "an update with 2,000 subscribers elsewhere: within 1.3 times of none", others},
	{"fanout", "write to the last of 100 who each hear it, 16 MB document: median under 3 ms", fanout},
	{"reopen", "opening 1.6 MB with 3,500 revisions: at most 60 ms", reopen},
	{"memory", "memory: at most 6 times the JSON text, also while opening", memory},
	{"compact", "compaction of 16 MB beside a writer: no update held up for more than 20 ms", compact},
}

func main() {
	b := bench{}
	flag.StringVar(&b.dir, "dir", "", "where to put databases (a new folder below it; default the current one)")
	flag.DurationVar(&b.time, "time", 2*time.Second, "how long to measure each side")
	child := flag.String("child", "", "internal: measure memory in this process")
	flag.Parse()
	if path, ok := strings.CutPrefix(*child, "open:"); ok {
		if err := memoryChild(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if err := run(&b, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(b *bench, names []string) (err error) {
	if b.dir == "" {
		b.dir = "."
	}
	if b.dir, err = os.MkdirTemp(b.dir, "bench-"); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	for _, bar := range bars {
		if len(names) > 0 && !slices.Contains(names, bar.name) {
			continue
		}
		found, holds, err := bar.measure(b)
		if err != nil {
			return fmt.Errorf("%s: %w", bar.name, err)
		}
		verdict := "holds"
		if !holds {
			verdict = "MISSED"
		}
		fmt.Printf("%-8s %s\n         %s  [%s]\n", bar.name, bar.promise, found, verdict)
	}
	return nil
}
