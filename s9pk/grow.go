package s9pk

import (
	"errors"
	"fmt"
	"io"
	"slices"
)

// firstRead is what is read, and allocated, before more of a claim is believed.
const firstRead = 256 << 10

// readGrowing reads n bytes at off. The length of a source may be a claim (of a
// server, say), so memory grows with what was read: at most to double of it.
func readGrowing(r io.ReaderAt, off, n int64) ([]byte, error) {
	b := make([]byte, 0, min(n, firstRead))
	for int64(len(b)) < n {
		step := int(min(n-int64(len(b)), max(int64(len(b)), firstRead)))
		b = slices.Grow(b, step)
		part := b[len(b) : len(b)+step]
		got, err := r.ReadAt(part, off+int64(len(b)))
		if got < step {
			if err == nil || errors.Is(err, io.EOF) {
				err = fmt.Errorf("%w: %d of %d bytes at offset %d", ErrTruncated, len(b)+got, n, off)
			}
			return nil, err
		}
		b = b[:len(b)+step]
	}
	return b, nil
}
