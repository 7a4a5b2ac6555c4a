package merkle

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"runtime"
	"sync"
	"sync/atomic"

	"lukechampine.com/blake3/guts"
)

// segment is the unit of parallel hashing: a complete subtree of 2^10 chunks.
const segment = 1 << 20

// parallelFrom is the content length from which several cores pay off.
const parallelFrom = 4 << 20

// maxWorkers bounds memory on machines of many cores, where the disk is the limit anyway.
const maxWorkers = 16

// Workers is how many goroutines hash at once unless told otherwise: one for
// each core, at most 16.
func Workers() int { return min(runtime.GOMAXPROCS(0), maxWorkers) }

type chain = [8]uint32

func chainBytes(cv chain) (h Hash) {
	for i, w := range cv {
		binary.LittleEndian.PutUint32(h[4*i:], w)
	}
	return h
}

func chainOf(b []byte) (cv chain) {
	for i := range cv {
		cv[i] = binary.LittleEndian.Uint32(b[4*i:])
	}
	return cv
}

// leftLen is how much of n > unit goes to the left child: the largest power of
// two times unit that is less than n.
func leftLen(n, unit int64) int64 {
	units := (n + unit - 1) / unit
	return unit << (bits.Len64(uint64(units-1)) - 1)
}

// subtree returns the node over p, which starts at the given chunk. len(p) must
// not be 0 unless it is the whole content; scratch room of 16 KiB must follow
// in cap(p) where p does not end on such a boundary.
func subtree(p []byte, chunk uint64) guts.Node {
	const group = guts.MaxSIMD * guts.ChunkSize
	if len(p) <= group {
		if len(p) <= guts.ChunkSize {
			return guts.CompressChunk(p, &guts.IV, chunk, 0)
		}
		if cap(p) >= group {
			return guts.CompressBuffer((*[group]byte)(p[:group]), len(p), &guts.IV, chunk, 0)
		}
		var buf [group]byte
		return guts.CompressBuffer(&buf, copy(buf[:], p), &guts.IV, chunk, 0)
	}
	mid := int(leftLen(int64(len(p)), group))
	l := guts.ChainingValue(subtree(p[:mid], chunk))
	r := guts.ChainingValue(subtree(p[mid:], chunk+uint64(mid/guts.ChunkSize)))
	return guts.ParentNode(l, r, &guts.IV, 0)
}

// join merges the chaining values of consecutive complete subtrees (the last
// may be shorter) into the node above them.
func join(cvs []chain) guts.Node {
	if len(cvs) == 2 {
		return guts.ParentNode(cvs[0], cvs[1], &guts.IV, 0)
	}
	mid := int(leftLen(int64(len(cvs)), 1))
	l := cvs[0]
	if mid > 1 {
		l = guts.ChainingValue(join(cvs[:mid]))
	}
	r := cvs[len(cvs)-1]
	if len(cvs)-mid > 1 {
		r = guts.ChainingValue(join(cvs[mid:]))
	}
	return guts.ParentNode(l, r, &guts.IV, 0)
}

func rootHash(n guts.Node) Hash {
	n.Flags |= guts.FlagRoot
	return chainBytes(guts.ChainingValue(n))
}

const page = 4 << 10

// buffers holds what hashing reads into.
var buffers = sync.Pool{New: func() any { b := make([]byte, segment+page); return &b }}

// window is n bytes of a buffer that begin as far into a page as offset off
// does, which lets the kernel copy whole words out of its page cache.
func window(buf []byte, off, n int64) []byte { return buf[off&(page-1):][:n] }

// HashAt hashes size bytes of r from off on, with up to workers goroutines (0
// means one for each core); memory is 1 MiB for each. progress, where not nil,
// is called with the number of bytes just done, from several goroutines. When r
// ends early the error wraps ErrTruncated.
//
// One goroutine reads and hashes by turns. Of two, one reads ahead of the other:
// the library that hashes a whole content takes two thirds of the time per byte
// of the one that hashes parts of it. From three on each takes parts, and their
// chaining values are merged.
func HashAt(ctx context.Context, r io.ReaderAt, off, size int64, workers int, progress func(n int64)) (Hash, error) {
	if progress == nil {
		progress = func(int64) {}
	}
	if workers <= 0 {
		workers = Workers()
	}
	switch {
	case workers == 1 || size < parallelFrom:
		return hashSerial(ctx, r, off, size, progress)
	case workers == 2:
		return hashAhead(ctx, r, off, size, progress)
	}
	n := (size + segment - 1) / segment
	cvs := make([]chain, n)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(int64(workers), n) {
		wg.Go(func() {
			bp := buffers.Get().(*[]byte)
			defer buffers.Put(bp)
			for ctx.Err() == nil {
				i := next.Add(1) - 1
				if i >= n {
					return
				}
				p := window(*bp, off+i*segment, min(segment, size-i*segment))
				if err := readAt(r, p, off+i*segment); err != nil {
					cancel(err)
					return
				}
				cvs[i] = guts.ChainingValue(subtree(p, uint64(i)*(segment/guts.ChunkSize)))
				progress(int64(len(p)))
			}
		})
	}
	wg.Wait()
	if err := context.Cause(ctx); err != nil {
		return Hash{}, err
	}
	return rootHash(join(cvs)), nil
}

// step is what is read before it is hashed: it stays in the second level cache.
const step = 256 << 10

func hashSerial(ctx context.Context, r io.ReaderAt, off, size int64, progress func(int64)) (Hash, error) {
	bp := buffers.Get().(*[]byte)
	defer buffers.Put(bp)
	h := NewHasher()
	for done := int64(0); done < size; {
		if err := ctx.Err(); err != nil {
			return Hash{}, context.Cause(ctx)
		}
		p := window(*bp, off+done, min(step, size-done))
		if err := readAt(r, p, off+done); err != nil {
			return Hash{}, err
		}
		h.Write(p)
		done += int64(len(p))
		progress(int64(len(p)))
	}
	return h.Sum(), nil
}

// hashAhead hashes what another goroutine reads, up to two steps ahead.
func hashAhead(ctx context.Context, r io.ReaderAt, off, size int64, progress func(int64)) (Hash, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	bp := buffers.Get().(*[]byte)
	type piece struct{ buf, p []byte }
	free, full := make(chan []byte, 3), make(chan piece, 3)
	for i := range cap(free) {
		free <- (*bp)[i*(step+page):][:step+page]
	}
	go func() {
		defer close(full)
		for done := int64(0); done < size && ctx.Err() == nil; {
			buf := <-free // hashing gives each back, whatever happens
			p := window(buf, off+done, min(step, size-done))
			if err := readAt(r, p, off+done); err != nil {
				cancel(err)
				return
			}
			done += int64(len(p))
			full <- piece{buf, p}
		}
	}()
	h := NewHasher()
	for got := range full {
		if ctx.Err() == nil {
			h.Write(got.p)
			progress(int64(len(got.p)))
		}
		free <- got.buf
	}
	buffers.Put(bp) // the reader has ended
	err := context.Cause(ctx)
	cancel(nil)
	if err != nil {
		return Hash{}, err
	}
	return h.Sum(), nil
}

// readAt fills p; an early end becomes ErrTruncated.
func readAt(r io.ReaderAt, p []byte, off int64) error {
	n, err := r.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if errors.Is(err, io.EOF) || err == nil {
		return fmt.Errorf("%w: %d of %d bytes at offset %d", ErrTruncated, n, len(p), off)
	}
	return err
}
