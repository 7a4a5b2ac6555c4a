package s9pk

import (
	"errors"
	"fmt"
	"io"

	"github.com/selfstead/selfstead/s9pk/merkle"
)

// Stream returns a reader that goes through the body once and hashes as it
// goes. What it hands on is proven only when it returns io.EOF: until then it
// holds the last bytes back, so a copy of a body that is wrong is never
// complete. Use Open where every single byte must be proven first.
func (f *File) Stream() (*StreamReader, error) {
	if err := f.check("read"); err != nil {
		return nil, err
	}
	f.a.announce(f.Position, f.Size)
	return f.stream()
}

// stream is Stream for a body that has been announced with others.
func (f *File) stream() (*StreamReader, error) {
	if err := f.check("read"); err != nil {
		return nil, err
	}
	return &StreamReader{f: f, r: f.Section(), h: merkle.NewHasher()}, nil
}

// StreamReader is what File.Stream returns.
type StreamReader struct {
	f        *File
	r        io.Reader
	h        *merkle.Hasher
	held     []byte // the end of the body, read and hashed, not handed on before the verdict
	done     int64  // bytes handed on
	verified bool
	err      error
}

const holdBack = 4 << 10

// Read reads on; an error that wraps ErrHashMismatch takes the place of the
// last bytes of a body that is not what was signed.
func (s *StreamReader) Read(p []byte) (int, error) {
	if len(s.held) == 0 && s.err != nil {
		return 0, s.err
	}
	if len(p) == 0 {
		return 0, nil
	}
	if len(s.held) > 0 {
		n := copy(p, s.held)
		s.held = s.held[n:]
		s.done += int64(n)
		return n, nil
	}
	if left := s.f.Size - s.h.Len(); left > holdBack {
		n, err := s.r.Read(p[:min(int64(len(p)), left-holdBack)])
		s.h.Write(p[:n])
		s.done += int64(n)
		if err != nil {
			return n, s.fail(err)
		}
		return n, nil
	}
	tail := make([]byte, s.f.Size-s.h.Len())
	if _, err := io.ReadFull(s.r, tail); err != nil {
		return 0, s.fail(err)
	}
	s.h.Write(tail)
	if got := s.h.Sum(); got != s.f.Hash {
		s.err = s.f.mismatch("read", got)
		return 0, s.err
	}
	s.verified, s.held, s.err = true, tail, io.EOF
	return s.Read(p)
}

func (s *StreamReader) fail(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = fmt.Errorf("%w: %d of %d bytes", ErrTruncated, s.h.Len(), s.f.Size)
	}
	s.err = s.f.fail("read", err)
	return s.err
}

// Verified tells how many bytes have been handed on, and whether they are proven.
func (s *StreamReader) Verified() (n int64, ok bool) { return s.done, s.verified }

// Close ends reading. It returns ErrUnverified where bytes were handed on that
// nothing has proven, and the error that Read gave, if any.
func (s *StreamReader) Close() error {
	switch {
	case s.err != nil && !errors.Is(s.err, io.EOF):
		return s.err
	case s.verified:
		return nil
	case s.done == 0:
		s.err = s.f.fail("read", ErrUnverified)
		return nil
	}
	err := s.f.fail("read", fmt.Errorf("%w: %d of %d bytes", ErrUnverified, s.done, s.f.Size))
	s.err = err
	return err
}
