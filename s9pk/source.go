package s9pk

import (
	"bytes"
	"fmt"
	"io"
	"os"

	"github.com/selfstead/selfstead/s9pk/merkle"
)

// forwardReader is a source of archives that serves reads front to back far
// better than any others, as one over a network does. Verify goes through it so.
type forwardReader interface {
	io.ReaderAt
	ReadsForward() bool
}

func (a *Archive) forward() bool {
	f, ok := a.r.(forwardReader)
	return ok && f.ReadsForward()
}

// announcer is a source that likes to know what will be read front to back, so
// that it can ask for all of it at once.
type announcer interface{ Expect(off, n int64) }

func (a *Archive) announce(off, n int64) {
	if r, ok := a.r.(announcer); ok {
		r.Expect(off, n)
	}
}

// smallGap is what may lie between bodies that are fetched in one go.
const smallGap = 1 << 20

// follows says whether f lies closely behind e in one archive.
func (f *File) follows(e *File) bool {
	return e != nil && f != nil && f.a == e.a && f.Position >= e.Position && f.Position-e.end() <= smallGap
}

// announceRun announces body i of files, which are read one after another, and
// those that follow it closely, where i begins such a run. Some may be nil: what
// does not come out of an archive.
func announceRun(files []*File, i int) {
	f := files[i]
	if f == nil || i > 0 && f.follows(files[i-1]) {
		return
	}
	to := f.end()
	for j := i + 1; j < len(files) && files[j].follows(files[j-1]); j++ {
		to = max(to, files[j].end())
	}
	f.a.announce(f.Position, to-f.Position)
}

// Bytes is a source for content in memory.
func Bytes(b []byte) merkle.Source { return bytesSource(b) }

type bytesSource []byte

type bytesReader struct{ *bytes.Reader }

func (bytesReader) Close() error { return nil }

func (b bytesSource) Size() int64                  { return int64(len(b)) }
func (b bytesSource) Open() (io.ReadCloser, error) { return bytesReader{bytes.NewReader(b)}, nil }

// FileSource is a source for a regular file on disk. Its length is taken now; a
// file that changes length before it has been written is an error then.
func FileSource(path string) (merkle.Source, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("s9pk: %s is not a regular file", path)
	}
	return fileSource{path, info.Size()}, nil
}

type fileSource struct {
	path string
	size int64
}

func (s fileSource) Size() int64                  { return s.size }
func (s fileSource) Open() (io.ReadCloser, error) { return os.Open(s.path) }
