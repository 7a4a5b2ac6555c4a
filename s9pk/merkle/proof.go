package merkle

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"lukechampine.com/blake3/guts"
)

// DefaultGroup is the usual size of what a Proof proves at once: 2^6 chunks of
// 1 KiB, 64 KiB. Outboards then add a thousandth to what they prove.
const DefaultGroup = 6

// maxGroup keeps a group within one segment.
const maxGroup = 10

// Proof holds the leaves of a BLAKE3 tree over one content, so that each group
// of chunks can be checked by itself, in any order. Its serial form is the
// outboard encoding of Bao with chunk groups: the length as a little-endian u64,
// then the parent nodes in pre-order, 64 bytes each. It needs no signature: it
// only fits the content with its root hash. A Proof is safe to share.
type Proof struct {
	size   int64
	group  int
	leaves []chain
	root   Hash
}

// Size is the length of the content.
func (p *Proof) Size() int64 { return p.size }

// Root is the hash of the content.
func (p *Proof) Root() Hash { return p.root }

// GroupSize is the number of bytes that are proven together.
func (p *Proof) GroupSize() int64 { return guts.ChunkSize << p.group }

// Groups is the number of groups; an empty content has one.
func (p *Proof) Groups() int64 { return max(1, (p.size+p.GroupSize()-1)/p.GroupSize()) }

// Span returns where group i begins and how long it is.
func (p *Proof) Span(i int64) (off, n int64) {
	off = i * p.GroupSize()
	return off, min(p.GroupSize(), p.size-off)
}

// Check says whether b is group i of the content: nil or ErrHashMismatch.
func (p *Proof) Check(i int64, b []byte) error {
	off, n := p.Span(i)
	if i < 0 || i >= p.Groups() || int64(len(b)) != n {
		return fmt.Errorf("%w: %d bytes are not group %d", ErrHashMismatch, len(b), i)
	}
	node := subtree(b, uint64(off/guts.ChunkSize))
	if p.Groups() == 1 {
		if rootHash(node) == p.root {
			return nil
		}
	} else if guts.ChainingValue(node) == p.leaves[i] {
		return nil
	}
	return fmt.Errorf("%w: bytes %d to %d", ErrHashMismatch, off, off+n)
}

// BuildProof reads size bytes of r from off on and makes their proof, with up to
// workers goroutines (0 means one for each core).
func BuildProof(ctx context.Context, r io.ReaderAt, off, size int64, group, workers int, progress func(n int64)) (*Proof, error) {
	if group < 0 || group > maxGroup {
		return nil, fmt.Errorf("merkle: group of 2^%d chunks", group)
	}
	if progress == nil {
		progress = func(int64) {}
	}
	if workers <= 0 {
		workers = Workers()
	}
	p := &Proof{size: size, group: group}
	p.leaves = make([]chain, p.Groups())
	segments := max(1, (size+segment-1)/segment)
	perSegment := int64(segment) / p.GroupSize()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(int64(workers), segments) {
		wg.Go(func() {
			bp := buffers.Get().(*[]byte)
			defer buffers.Put(bp)
			for ctx.Err() == nil {
				i := next.Add(1) - 1
				if i >= segments {
					return
				}
				b := window(*bp, off+i*segment, min(segment, size-i*segment))
				if err := readAt(r, b, off+i*segment); err != nil {
					cancel(err)
					return
				}
				for j := range (int64(len(b)) + p.GroupSize() - 1) / p.GroupSize() {
					from := j * p.GroupSize()
					g := b[from:min(from+p.GroupSize(), int64(len(b)))]
					p.leaves[i*perSegment+j] = guts.ChainingValue(subtree(g, uint64(i*segment+from)/guts.ChunkSize))
				}
				if p.Groups() == 1 {
					p.root = rootHash(subtree(b, 0))
				}
				progress(int64(len(b)))
			}
		})
	}
	wg.Wait()
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	if len(p.leaves) > 1 {
		p.root = rootHash(join(p.leaves))
	}
	return p, nil
}

// OutboardLen is the length of the serial form of a proof.
func OutboardLen(size int64, group int) int64 {
	groupSize := int64(guts.ChunkSize) << group
	return 8 + 64*(max(1, (size+groupSize-1)/groupSize)-1)
}

// AppendOutboard adds the serial form.
func (p *Proof) AppendOutboard(b []byte) []byte {
	b = binary.LittleEndian.AppendUint64(b, uint64(p.size))
	if len(p.leaves) < 2 {
		return b
	}
	b, _ = appendParents(b, p.leaves)
	return b
}

func appendParents(b []byte, cvs []chain) ([]byte, chain) {
	if len(cvs) == 1 {
		return b, cvs[0]
	}
	mid := int(leftLen(int64(len(cvs)), 1))
	at := len(b)
	b = append(b, make([]byte, 64)...)
	b, l := appendParents(b, cvs[:mid])
	b, r := appendParents(b, cvs[mid:])
	lb, rb := chainBytes(l), chainBytes(r)
	copy(b[at:], lb[:])
	copy(b[at+32:], rb[:])
	return b, guts.ChainingValue(guts.ParentNode(l, r, &guts.IV, 0))
}

// ParseOutboard reads a serial form and proves all of it against the content's
// hash and length. The error wraps ErrTruncated or ErrHashMismatch.
func ParseOutboard(b []byte, root Hash, size int64, group int) (*Proof, error) {
	if group < 0 || group > maxGroup {
		return nil, fmt.Errorf("%w: outboard with groups of 2^%d chunks", ErrFormat, group)
	}
	if want := OutboardLen(size, group); int64(len(b)) != want {
		return nil, fmt.Errorf("%w: outboard of %d bytes, need %d", ErrTruncated, len(b), want)
	}
	if n := binary.LittleEndian.Uint64(b); n != uint64(size) {
		return nil, fmt.Errorf("%w: outboard is for %d bytes, content has %d", ErrHashMismatch, n, size)
	}
	p := &Proof{size: size, group: group, root: root}
	n := p.Groups()
	if n == 1 {
		return p, nil // Check compares with the root
	}
	p.leaves = make([]chain, 0, n)
	if _, ok := p.descend(b[8:], chainOf(root[:]), n, guts.FlagRoot); !ok {
		return nil, fmt.Errorf("%w: outboard does not belong to the content", ErrHashMismatch)
	}
	return p, nil
}

// descend proves the parents of n leaves under cv and collects the leaves.
func (p *Proof) descend(b []byte, cv chain, n int64, flags uint32) ([]byte, bool) {
	if n == 1 {
		p.leaves = append(p.leaves, cv)
		return b, true
	}
	l, r := chainOf(b), chainOf(b[32:])
	if guts.ChainingValue(guts.ParentNode(l, r, &guts.IV, flags)) != cv {
		return nil, false
	}
	mid := leftLen(n, 1)
	b, ok := p.descend(b[64:], l, mid, 0)
	if !ok {
		return nil, false
	}
	return p.descend(b, r, n-mid, 0)
}
