package s9pk

import (
	"bytes"
	"fmt"
	"io"
	"os"

	"github.com/selfstead/selfstead/s9pk/merkle"
)

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
