package logs

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// MaxLine is the length in bytes past which a stored line is passed over.
const MaxLine = 256 << 10

// The streams of a line.
const (
	Stdout  = "stdout"
	Stderr  = "stderr"
	Console = "console"
)

type line struct {
	T time.Time `json:"t"`
	S string    `json:"s"`
	M string    `json:"m"`
}

// file is one open log file with the identity that cursors use.
type file struct {
	*os.File
	info os.FileInfo
	born int64 // time of the first line, nanoseconds; 0 when the file has none yet
	size int64
}

// openFile opens name without following a link and without blocking on a pipe.
func openFile(dir, name string) (*file, error) {
	path := filepath.Join(dir, name)
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if errors.Is(err, syscall.ELOOP) {
		return nil, fmt.Errorf("logs: %s is a link: %w", name, os.ErrNotExist)
	}
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		f.Close()
		return nil, fmt.Errorf("logs: %s is not a regular file: %w", name, os.ErrNotExist)
	}
	out := &file{File: f, info: info, size: info.Size()}
	out.readBirth()
	return out, nil
}

// readBirth finds the first line that parses within the first MaxLine bytes.
func (f *file) readBirth() {
	r := bufio.NewReaderSize(io.NewSectionReader(f.File, 0, MaxLine), 4096)
	for {
		text, err := r.ReadBytes('\n')
		if err != nil {
			return
		}
		if l, ok := parse(text); ok {
			f.born = l.T.UnixNano()
			return
		}
	}
}

func (f *file) cursor(offset int64) string {
	return strconv.FormatInt(f.born, 16) + "." + strconv.FormatInt(offset, 16)
}

func parseCursor(c string) (born, offset int64, err error) {
	b, o, ok := strings.Cut(c, ".")
	if ok {
		born, err = strconv.ParseInt(b, 16, 64)
		if err == nil {
			offset, err = strconv.ParseInt(o, 16, 64)
		}
	}
	if !ok || err != nil || offset < 0 {
		return 0, 0, fmt.Errorf("%w: %q", ErrCursor, c)
	}
	return born, offset, nil
}

// ErrCursor is returned for a cursor that this package did not make.
var ErrCursor = errors.New("logs: not a cursor")

func parse(text []byte) (line, bool) {
	var l line
	if len(text) > MaxLine || json.Unmarshal(text, &l) != nil || l.T.IsZero() {
		return line{}, false
	}
	if l.S != Stderr && l.S != Console {
		l.S = Stdout
	}
	return l, true
}

// forward calls fn for each whole line from offset on and returns the offset
// behind the last whole line.
func (f *file) forward(offset int64, fn func(Entry) error) (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return offset, err
	}
	f.size = info.Size()
	if offset > f.size { // truncated by its writer: begin again
		offset = 0
	}
	r := bufio.NewReaderSize(io.NewSectionReader(f.File, offset, f.size-offset), 64<<10)
	for {
		text, n, err := readLine(r)
		if err != nil {
			return offset, nil
		}
		offset += n
		if l, ok := parse(text); ok {
			if f.born == 0 {
				f.born = l.T.UnixNano()
			}
			if err := fn(Entry{Time: l.T, Stream: l.S, Message: l.M, Cursor: f.cursor(offset)}); err != nil {
				return offset, err
			}
		}
	}
}

// readLine reads one line and its length; of a line longer than MaxLine only
// so much is kept that parse refuses it.
func readLine(r *bufio.Reader) (text []byte, n int64, err error) {
	for {
		part, err := r.ReadSlice('\n')
		n += int64(len(part))
		if len(text) <= MaxLine {
			text = append(text, part...)
		}
		switch {
		case err == nil:
			return text, n, nil
		case !errors.Is(err, bufio.ErrBufferFull):
			return nil, n, err
		}
	}
}

// backward returns up to limit entries that end at or before end, in the
// order of the file. It reads blocks from the end, so its cost goes with limit
// and not with the file.
func (f *file) backward(end int64, limit int) ([]Entry, error) {
	const block = 64 << 10
	if end > f.size {
		end = f.size
	}
	var tail []byte // bytes from start to end, start lowered block by block
	start := end
	for start > 0 && bytes.Count(tail, []byte{'\n'}) <= limit && end-start < int64(limit+1)*MaxLine {
		n := min(start, block)
		buf := make([]byte, n, int(n)+len(tail))
		if _, err := f.ReadAt(buf, start-n); err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		tail, start = append(buf, tail...), start-n
	}
	if start > 0 { // the first line is cut
		i := bytes.IndexByte(tail, '\n')
		if i < 0 {
			return nil, nil
		}
		tail, start = tail[i+1:], start+int64(i)+1
	}
	var out []Entry
	for {
		i := bytes.IndexByte(tail, '\n')
		if i < 0 {
			break
		}
		start += int64(i) + 1
		if l, ok := parse(tail[:i+1]); ok {
			out = append(out, Entry{Time: l.T, Stream: l.S, Message: l.M, Cursor: f.cursor(start)})
		}
		tail = tail[i+1:]
	}
	if len(out) > limit {
		out = out[len(out)-limit:]
	}
	return out, nil
}
