package squashfs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// DefaultLevel is the zstd level that Create uses: on a Debian root it takes a
// seventh of the time of mksquashfs's own default (15) for 7 % more bytes.
const DefaultLevel = 9

// CreateOptions tunes Create. The zero value suits production.
type CreateOptions struct {
	Level int // zstd level 1 to 22; 0 means DefaultLevel
	// Time of the file system and its root directory, and the latest that a file
	// keeps; zero means 1970. One in the future counts as now for the root, which
	// then differs from run to run: mksquashfs has no other way.
	Time     time.Time
	RootMode fs.FileMode // permissions of the root directory; 0 means 0755
	Exe      string      // mksquashfs; "" means the one on PATH
}

// Version names what decides the bytes that Create writes beside its input:
// part of every cache key. It grows when the options given to mksquashfs do.
const Version = "zstd-128k-1"

// Create writes the tar stream that source produces as a SquashFS file at path,
// compressed with zstd and padded to a multiple of 4 KiB, as the loop devices
// that mount it from inside a package ask. Owners, modes, times, extended
// attributes, links and devices are those of the stream, whose directories must
// precede what they hold. The same stream and options give the same bytes with
// the same mksquashfs. The file appears whole or not at all.
//
// The root directory itself belongs to root: mksquashfs 4.5 ignores a stream's
// entry for it, so source should not write one.
func Create(ctx context.Context, path string, o CreateOptions, source func(w io.Writer) error) (err error) {
	exe := o.Exe
	if exe == "" {
		if exe, err = exec.LookPath("mksquashfs"); err != nil {
			return fmt.Errorf("squashfs: create %s: %w (Debian's squashfs-tools has it)", path, err)
		}
	}
	level, mode, epoch := o.Level, o.RootMode, o.Time
	if level == 0 {
		level = DefaultLevel
	}
	if mode == 0 {
		mode = 0o755
	}
	if epoch.Unix() < 0 {
		epoch = time.Unix(0, 0)
	}
	dir, err := os.MkdirTemp(filepath.Dir(path), ".mksquashfs-")
	if err != nil {
		return fmt.Errorf("squashfs: create %s: %w", path, err)
	}
	defer os.RemoveAll(dir)
	tmp := filepath.Join(dir, "image")

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// SOURCE_DATE_EPOCH instead of -mkfs-time and -root-time: the options do not
	// reach the root directory of an image made from a tar stream (4.5.1), and
	// together with the variable newer versions refuse them.
	cmd := exec.CommandContext(ctx, exe, "-", tmp, "-tar", "-comp", "zstd",
		"-Xcompression-level", strconv.Itoa(level), "-b", "128K", "-noappend", "-quiet", "-no-progress",
		"-exit-on-error", "-root-mode", strconv.FormatUint(uint64(mode.Perm()), 8))
	cmd.Env = append(environWithout("SOURCE_DATE_EPOCH"), "SOURCE_DATE_EPOCH="+strconv.FormatInt(epoch.Unix(), 10))
	var said tail
	cmd.Stdout, cmd.Stderr = &said, &said
	in, err := cmd.StdinPipe()
	if err != nil {
		return fmt.Errorf("squashfs: create %s: %w", path, err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("squashfs: create %s: %w", path, err)
	}
	werr := source(in)
	if werr != nil {
		cancel() // a cut stream must not become an image
	}
	cerr := in.Close()
	if err := cmd.Wait(); err != nil && (werr == nil || isBrokenPipe(werr)) {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return fmt.Errorf("squashfs: create %s: mksquashfs: %w%s", path, err, said.lines())
	}
	if werr == nil && cerr != nil && !errors.Is(cerr, os.ErrClosed) {
		werr = cerr
	}
	if werr != nil {
		return fmt.Errorf("squashfs: create %s: %w", path, werr)
	}
	if err := finish(tmp); err != nil {
		return fmt.Errorf("squashfs: create %s: %w", path, err)
	}
	if err := os.Rename(tmp, path); err != nil {
		return fmt.Errorf("squashfs: create %s: %w", path, err)
	}
	return nil
}

// finish makes sure of the multiple of 4 KiB, of a mode that others can read,
// and that the bytes are on disk before the name is.
func finish(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	if over := fi.Size() % 4096; over != 0 {
		if err := f.Truncate(fi.Size() + 4096 - over); err != nil {
			return err
		}
	}
	if err := f.Chmod(0o644); err != nil {
		return err
	}
	return f.Sync()
}

func isBrokenPipe(err error) bool {
	return errors.Is(err, syscall.EPIPE) || errors.Is(err, os.ErrClosed)
}

func environWithout(name string) []string {
	env := os.Environ()
	kept := env[:0]
	for _, v := range env {
		if !strings.HasPrefix(v, name+"=") {
			kept = append(kept, v)
		}
	}
	return kept
}

// tail keeps the last few KiB of what a program said.
type tail struct{ b []byte }

func (t *tail) Write(p []byte) (int, error) {
	t.b = append(t.b, p...)
	if over := len(t.b) - 4096; over > 0 {
		t.b = append(t.b[:0], t.b[over:]...)
	}
	return len(p), nil
}

func (t *tail) lines() string {
	s := strings.TrimSpace(string(t.b))
	if s == "" {
		return ""
	}
	return ": " + strings.ReplaceAll(s, "\n", "; ")
}
