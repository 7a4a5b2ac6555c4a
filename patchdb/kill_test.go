package patchdb

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// writerEnv makes the test program a writer of the database that it names.
const writerEnv = "PATCHDB_TEST_WRITER"

func TestMain(m *testing.M) {
	if path := os.Getenv(writerEnv); path != "" {
		if err := writer(path); err != nil {
			fmt.Println("error", err)
			os.Exit(3)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// writer updates from four goroutines, and says of each update when it was
// acknowledged, in one write. PATCHDB_TEST_UPDATES bounds it.
func writer(path string) error {
	limit, err := strconv.Atoi(os.Getenv("PATCHDB_TEST_UPDATES"))
	if err != nil {
		limit = 1 << 30
	}
	if err := limitFiles(); err != nil {
		return err
	}
	db, err := Open(path, Options{CompactEvery: 50})
	if err != nil {
		return err
	}
	var mu sync.Mutex
	say := func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		os.Stdout.WriteString(fmt.Sprintf(format, args...) + "\n")
	}
	say("open %d", db.Revision())
	errs := make([]error, 4)
	var wg sync.WaitGroup
	for w := range errs {
		wg.Go(func() {
			p := Join("/w", fmt.Sprint(w))
			n := 0
			if err := db.View(func(tx *Tx) error { return tx.Get(p, &n) }); err != nil && !errors.Is(err, ErrNotFound) {
				errs[w] = err
				return
			}
			for range limit {
				n++
				if _, err := db.Update(context.Background(), func(tx *Tx) error { return tx.PutAll(p, n) }); err != nil {
					errs[w] = err
					return
				}
				say("%d %d", w, n)
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		if errors.Is(db.Err(), ErrReadOnly) {
			say("read-only")
		}
		db.Close()
		return err
	}
	return db.Close()
}

// writers is a document of the writer, and what it acknowledged.
type writers [4]int

func (w *writers) hear(line string) {
	var i, n int
	if _, err := fmt.Sscanf(line, "%d %d", &i, &n); err == nil && i < len(w) {
		w[i] = max(w[i], n)
	}
}

// check reads the database that a writer left: what it acknowledged is there,
// and at most one more of each goroutine.
func (w *writers) check(t *testing.T, path string, inFlight int) {
	t.Helper()
	if _, err := Check(path); errors.Is(err, fs.ErrNotExist) && *w == (writers{}) {
		return // it did not get so far as to make one
	} else if err != nil {
		t.Fatal(err)
	}
	db, err := Open(path, Options{CompactEvery: -1})
	if err != nil {
		t.Fatal(err)
	}
	total := 0
	for i := range w {
		n := 0
		if err := db.View(func(tx *Tx) error { return tx.Get(Join("/w", fmt.Sprint(i)), &n) }); err != nil && !errors.Is(err, ErrNotFound) {
			t.Fatal(err)
		}
		if n < w[i] || n > w[i]+inFlight {
			t.Fatalf("writer %d is at %d, %d were acknowledged", i, n, w[i])
		}
		w[i] = n
		total += n
	}
	if int(db.Revision()) != total {
		t.Fatalf("revision %d after %d updates", db.Revision(), total)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

func writerCommand(t *testing.T, path string, prefix ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	args := append(prefix, self)
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append(os.Environ(), writerEnv+"="+path)
	cmd.Stderr = os.Stderr
	return cmd
}

// A writer process is killed at any moment, again and again, on one database.
// PATCHDB_KILLS says how often; see killRounds.
func TestKill(t *testing.T) {
	t.Parallel()
	r := seeded(t)
	path := filepath.Join(crashDir(t), "a.db")
	var acked writers
	for round := range rounds(t, "PATCHDB_KILLS", killRounds) {
		cmd := writerCommand(t, path)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		if !lines.Scan() || !strings.HasPrefix(lines.Text(), "open") {
			cmd.Process.Kill()
			cmd.Wait()
			t.Fatalf("round %d: the writer says %q", round, lines.Text())
		}
		// Some rounds end after so many updates, others after so much time.
		n := r.IntN(150)
		kill := time.AfterFunc(time.Duration(r.IntN(60_000))*time.Microsecond, func() { cmd.Process.Kill() })
		for i := 0; lines.Scan(); i++ {
			acked.hear(lines.Text())
			if i == n {
				cmd.Process.Kill()
			}
		}
		kill.Stop()
		cmd.Wait()
		acked.check(t, path, 1)
	}
	t.Logf("%d updates", acked[0]+acked[1]+acked[2]+acked[3])
}

// Another process that has the database is the reason to be refused, until it
// ends; to read, nobody is.
func TestSecondProcess(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "a.db")
	cmd := writerCommand(t, path)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// Its output fills a pipe, at which it waits with the database open.
	lines := bufio.NewScanner(out)
	for range 20 {
		if !lines.Scan() {
			t.Error("the writer ended")
			break
		}
	}
	_, err = Open(path, Options{})
	var fe *FileError
	if !errors.Is(err, ErrLocked) || !errors.As(err, &fe) || fe.Path != path || !strings.Contains(err.Error(), "in use by another process") {
		t.Errorf("while another process has it: %v", err)
	}
	if db, err := Open(path, Options{ReadOnly: true}); err != nil || db.Revision() == 0 {
		t.Errorf("for reading: %v", err)
	} else if err := db.Close(); err != nil {
		t.Error(err)
	}
	cmd.Process.Kill()
	cmd.Wait()
	db, err := Open(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	closeChecked(t, db)
}
