package patchdb

import (
	"bytes"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Each kind of system call that changes the disk fails, or kills the process, at
// one place after the other, by strace's fault injection on a real process and a
// real file system; TestCutShort cuts writes short there. PATCHDB_STRACE_STEP is
// the distance between places.
func TestStrace(t *testing.T) {
	t.Parallel()
	strace := needTool(t, "strace")
	if err := exec.Command(strace, "-e", "trace=none", "true").Run(); err != nil {
		t.Logf("strace: %v", err)
		needTool(t, "a strace that may trace")
	}
	calls := []struct {
		name, errno string
		most        int // more than a run has of it
	}{
		{"pwrite64", "ENOSPC", 220}, {"pwrite64", "EIO", 220}, {"fdatasync", "EIO", 110}, {"sync_file_range", "EIO", 4}, {"fsync", "EIO", 6},
		{"ftruncate", "EIO", 8}, {"renameat", "EIO", 4}, {"linkat", "ENOSPC", 2}, {"unlinkat", "EACCES", 6}, {"openat", "EMFILE", 40},
	}
	step := rounds(t, "PATCHDB_STRACE_STEP", 37)
	dir := crashDir(t)
	runs, hits := map[string]int{}, map[string]int{}
	for _, c := range calls {
		for _, fault := range []string{"error=" + c.errno, "signal=KILL"} {
			for at := 1; at <= c.most; at += max(1, min(step, c.most/2)) {
				name := fmt.Sprintf("%s-%s-%s-%d", c.name, c.errno, fault, at)
				path := filepath.Join(dir, name)
				cmd := writerCommand(t, path, strace, "-f", "-qq", "-o", "/dev/null", "-e", "trace="+c.name, "-P", path, "-P", path+".new", "-P", dir,
					"-e", fmt.Sprintf("inject=%s:%s:when=%d", c.name, fault, at))
				cmd.Env = append(cmd.Env, "PATCHDB_TEST_UPDATES=30")
				out, err := cmd.Output()
				var exit *exec.ExitError
				if err != nil && !errors.As(err, &exit) {
					t.Fatal(err)
				}
				runs[c.name]++
				if err != nil {
					hits[c.name]++
				}
				var acked writers
				for line := range strings.Lines(string(out)) {
					acked.hear(line)
				}
				// Without a kill, what failed was taken back.
				inFlight := 0
				if strings.HasPrefix(fault, "signal") {
					inFlight = 1
				} else if err != nil && !bytes.Contains(out, []byte("error ")) {
					t.Errorf("%s: %v: %s", name, err, out)
				} else if err != nil && bytes.HasPrefix(out, []byte("open ")) && !bytes.Contains(out, []byte("error patchdb: close")) && !bytes.Contains(out, []byte("read-only\n")) {
					t.Errorf("%s: the database is not read-only: %s", name, out)
				}
				t.Run(name, func(t *testing.T) { acked.check(t, path, inFlight) })
			}
		}
	}
	t.Logf("runs %v, of which the fault ended %v", runs, hits)
	for name, n := range runs {
		// Some faults are survived: room written ahead, a compaction that is put off.
		if hits[name] == 0 {
			t.Errorf("%s: none of %d faults was felt", name, n)
		}
	}
}
