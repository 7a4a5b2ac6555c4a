package patchdb

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

// Writes on a real file system are cut short at one byte after the other: a
// process may not let files grow past a length (RLIMIT_FSIZE), and the kernel
// writes what fits before it refuses the rest.
func TestCutShort(t *testing.T) {
	t.Parallel()
	dir := crashDir(t)
	ended := 0
	for limit := 1; limit < 6000; limit += 23 {
		path := filepath.Join(dir, fmt.Sprint(limit))
		cmd := writerCommand(t, path)
		cmd.Env = append(cmd.Env, fmt.Sprintf("%s=%d", limitEnv, limit), "PATCHDB_TEST_UPDATES=30")
		out, err := cmd.Output()
		var acked writers
		for line := range strings.Lines(string(out)) {
			acked.hear(line)
		}
		if err != nil {
			ended++
			if !bytes.Contains(out, []byte("file too large")) || bytes.HasPrefix(out, []byte("open ")) != bytes.Contains(out, []byte("read-only\n")) {
				t.Errorf("%d bytes: %v: %s", limit, err, out)
			}
		}
		t.Run(fmt.Sprint(limit), func(t *testing.T) { acked.check(t, path, 0) })
	}
	if ended < 10 {
		t.Errorf("only %d writers felt the limit", ended)
	}
}

// A disk that is full, small ones of two file systems: the update says so, the
// document stays at the last one that was acknowledged, in memory and in the file,
// the database is read-only, and with room again all goes on.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		skipOrFail(t, "the right to mount is missing")
	}
	for _, kind := range []string{"tmpfs", "ext4"} {
		t.Run(kind, func(t *testing.T) {
			dir := t.TempDir()
			disk := filepath.Join(dir, "disk")
			if err := os.Mkdir(disk, 0o700); err != nil {
				t.Fatal(err)
			}
			// The mount is this thread's alone, and ends with it.
			runtime.LockOSThread()
			if err := syscall.Unshare(syscall.CLONE_NEWNS | syscall.CLONE_FS); err != nil {
				t.Fatal(err)
			}
			if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
				t.Fatal(err)
			}
			if kind == "tmpfs" {
				if err := syscall.Mount("patchdb-test", disk, "tmpfs", 0, "size=1m"); err != nil {
					t.Fatal(err)
				}
			} else {
				image := filepath.Join(dir, "image")
				if err := os.WriteFile(image, nil, 0o600); err != nil {
					t.Fatal(err)
				}
				if err := os.Truncate(image, 4<<20); err != nil {
					t.Fatal(err)
				}
				for _, c := range [][]string{{"mkfs.ext4", "-q", "-F", image}, {"mount", "-o", "loop", image, disk}} {
					if out, err := exec.Command(needTool(t, c[0]), c[1:]...).CombinedOutput(); err != nil {
						t.Fatalf("%v: %v: %s", c, err, out)
					}
				}
			}
			defer func() {
				if err := syscall.Unmount(disk, syscall.MNT_DETACH); err != nil {
					t.Error(err)
				}
			}()
			fillDisk(t, disk)
		})
	}
}

func fillDisk(t *testing.T, disk string) {
	path, ballast := filepath.Join(disk, "a.db"), filepath.Join(disk, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 256<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	db, err := Open(path, Options{CompactEvery: -1})
	if err != nil {
		t.Fatal(err)
	}
	update := func(db *DB, n int) error {
		_, err := db.Update(t.Context(), func(tx *Tx) error {
			if err := tx.PutAll(Join("/items", fmt.Sprint(n%5)), strings.Repeat(string(rune('a'+n%26)), 20_000)); err != nil {
				return err
			}
			return tx.PutAll("/n", n)
		})
		return err
	}
	at := func(db *DB, want int) {
		t.Helper()
		var n int
		if err := db.View(func(tx *Tx) error { return tx.Get("/n", &n) }); err != nil || n != want || int(db.Revision()) != want {
			t.Fatalf("at %d, revision %d, %v; want %d", n, db.Revision(), err, want)
		}
	}
	n := 0
	for err = update(db, 1); err == nil; err = update(db, n+1) {
		if n++; n > 10_000 {
			t.Fatal("the disk does not fill")
		}
	}
	if !errors.Is(err, ErrReadOnly) || !errors.Is(err, syscall.ENOSPC) || !strings.HasPrefix(err.Error(), "patchdb: read-only: write "+path+" at byte ") ||
		!strings.HasSuffix(err.Error(), ": write: no space left on device") {
		t.Errorf("a full disk: %v", err)
	}
	t.Logf("after %d updates: %v", n, err)
	at(db, n)
	if again := update(db, n+1); !errors.Is(again, ErrReadOnly) || !errors.Is(db.Err(), syscall.ENOSPC) {
		t.Errorf("afterwards: %v, %v", again, db.Err())
	}
	if err := db.Compact(t.Context()); !errors.Is(err, ErrReadOnly) {
		t.Errorf("compaction afterwards: %v", err)
	}
	if err := db.Close(); err != nil {
		t.Error(err)
	}
	if r, err := Check(path); err != nil || int(r.Revision) != n {
		t.Fatalf("%+v %v", r, err)
	}
	// A compaction that does not fit leaves all as it is.
	if db, err = Open(path, Options{CompactEvery: -1}); err != nil {
		t.Fatal(err)
	}
	at(db, n)
	if err := db.Compact(t.Context()); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("compaction on a full disk: %v", err)
	}
	if err := db.Err(); err != nil {
		t.Errorf("after a compaction without room: %v", err)
	}
	if _, err := os.Stat(path + newSuffix); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the compaction left its file: %v", err)
	}
	if err := db.Close(); err != nil {
		t.Error(err)
	}
	// Nor is a second database begun where it has no room.
	second := filepath.Join(disk, "b.db")
	if db, err := Create(second, Dump{Value: []byte(`"` + strings.Repeat("x", 128<<10) + `"`)}, Options{}); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("a second database: %v, %v", db, err)
	}
	if names, err := filepath.Glob(second + "*"); err != nil || len(names) > 0 {
		t.Errorf("it left %v, %v", names, err)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	if db, err = Open(path, Options{CompactEvery: -1}); err != nil {
		t.Fatal(err)
	}
	defer closeChecked(t, db)
	if err := errors.Join(update(db, n+1), db.Compact(t.Context()), update(db, n+2)); err != nil {
		t.Fatalf("with room again: %v", err)
	}
	at(db, n+2)
}
