package s9pk

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"sync"

	"github.com/selfstead/selfstead/s9pk/merkle"
)

// An outboard file stands beside a package and lets parts of its bodies be
// proven without reading the whole of them. All integers are big-endian:
//
//	0   8   magic "s9pkob\x00\x01"
//	8   1   group: each proof covers 2^group KiB
//	9   32  root sighash of the package, to find out early that the two do not belong together
//	41  4   count
//	45      count times: hash 32, size u64, position u64; by hash
//	        then the Bao outboards that the positions point at
//
// Nothing in it is trusted: a Bao outboard either fits a signed hash or is refused.
var outboardMagic = []byte("s9pkob\x00\x01")

const (
	outboardHead  = 45
	outboardEntry = 48
	maxOutboards  = 1 << 16
)

// OutboardSuffix is added to a package's name or URL for its outboard file.
const OutboardSuffix = ".obao"

type outboardRow struct {
	hash merkle.Hash
	size int64
	pos  int64
}

// Outboard is an opened outboard file. It is safe to share.
type Outboard struct {
	r     io.ReaderAt
	group int
	root  merkle.Hash
	rows  []outboardRow

	mu     sync.Mutex
	proofs map[merkle.Hash]*merkle.Proof // parsed ones
}

// WriteOutboard reads every body longer than one group, proves it, and writes
// the outboard of the archive. group is merkle.DefaultGroup unless there is a
// reason: smaller groups prove less at once and cost more bytes.
func (a *Archive) WriteOutboard(ctx context.Context, w io.Writer, group int, progress func(done, total int64)) error {
	files, total, err := a.bodies()
	if err != nil {
		return err
	}
	files = slices.DeleteFunc(files, func(f *File) bool { return f.Size <= 1024<<group })
	slices.SortFunc(files, func(x, y *File) int { return bytes.Compare(x.Hash[:], y.Hash[:]) })
	files = slices.CompactFunc(files, func(x, y *File) bool { return x.Hash == y.Hash })
	if len(files) > maxOutboards {
		return fmt.Errorf("s9pk: outboard: %w: %d bodies", ErrLimit, len(files))
	}
	head := append(bytes.Clone(outboardMagic), byte(group))
	head = append(head, a.header.Commitment.RootSighash[:]...)
	head = binary.BigEndian.AppendUint32(head, uint32(len(files)))
	pos := int64(outboardHead + outboardEntry*len(files))
	for _, f := range files {
		head = append(head, f.Hash[:]...)
		head = binary.BigEndian.AppendUint64(head, uint64(f.Size))
		head = binary.BigEndian.AppendUint64(head, uint64(pos))
		pos += merkle.OutboardLen(f.Size, group)
	}
	if _, err := w.Write(head); err != nil {
		return err
	}
	var mu sync.Mutex
	var done int64
	report := func(n int64) {
		if progress != nil {
			mu.Lock()
			defer mu.Unlock()
			done += n
			progress(done, total)
		}
	}
	workers := 0
	if a.forward() {
		workers = 1
	}
	var buf []byte
	for _, f := range files {
		a.announce(f.Position, f.Size)
		p, err := merkle.BuildProof(ctx, a.r, f.Position, f.Size, group, workers, report)
		if err != nil {
			return f.fail("outboard", err)
		}
		if p.Root() != f.Hash {
			return f.mismatch("outboard", p.Root())
		}
		buf = p.AppendOutboard(buf[:0])
		if _, err := w.Write(buf); err != nil {
			return err
		}
	}
	return nil
}

// OpenOutboard reads the index of an outboard file.
func OpenOutboard(r io.ReaderAt, size int64) (*Outboard, error) {
	fail := func(err error, format string, args ...any) error {
		return fmt.Errorf("s9pk: outboard: %w: %s", err, fmt.Sprintf(format, args...))
	}
	w := &window{r: r, size: size}
	if size < outboardHead {
		return nil, fail(ErrTruncated, "%d bytes", size)
	}
	head, err := w.bytes(0, outboardHead)
	if err != nil {
		return nil, fmt.Errorf("s9pk: outboard: %w", err)
	}
	if !bytes.HasPrefix(head, outboardMagic) {
		return nil, fail(ErrFormat, "magic is wrong")
	}
	o := &Outboard{r: r, group: int(head[8]), proofs: map[merkle.Hash]*merkle.Proof{}}
	copy(o.root[:], head[9:])
	n := int64(binary.BigEndian.Uint32(head[41:]))
	if n > maxOutboards || o.group > 10 {
		return nil, fail(ErrLimit, "%d entries, groups of 2^%d KiB", n, o.group)
	}
	if size < outboardHead+n*outboardEntry {
		return nil, fail(ErrTruncated, "index of %d entries", n)
	}
	index, err := w.bytes(outboardHead, n*outboardEntry)
	if err != nil {
		return nil, fmt.Errorf("s9pk: outboard: %w", err)
	}
	for ; len(index) > 0; index = index[outboardEntry:] {
		row := outboardRow{size: int64(binary.BigEndian.Uint64(index[32:])), pos: int64(binary.BigEndian.Uint64(index[40:]))}
		copy(row.hash[:], index)
		if row.size < 0 || row.pos < 0 || row.pos > size || merkle.OutboardLen(row.size, o.group) > size-row.pos {
			return nil, fail(ErrTruncated, "entry %s lies beyond the end", row.hash)
		}
		o.rows = append(o.rows, row)
	}
	if !slices.IsSortedFunc(o.rows, compareRows) {
		return nil, fail(ErrFormat, "index is not in order")
	}
	return o, nil
}

func compareRows(a, b outboardRow) int { return bytes.Compare(a.hash[:], b.hash[:]) }

// Root is the sighash of the package that the outboard was made for.
func (o *Outboard) Root() merkle.Hash { return o.root }

// Proof reads what proves the content with this hash; fs.ErrNotExist where the
// outboard has nothing for it.
func (o *Outboard) Proof(h merkle.Hash, size int64) (*merkle.Proof, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if p := o.proofs[h]; p != nil {
		return p, nil
	}
	i, ok := slices.BinarySearchFunc(o.rows, outboardRow{hash: h}, compareRows)
	if !ok || o.rows[i].size != size {
		return nil, fmt.Errorf("s9pk: outboard for %s: %w", h, fs.ErrNotExist)
	}
	b, err := readGrowing(o.r, o.rows[i].pos, merkle.OutboardLen(size, o.group))
	if err != nil {
		return nil, fmt.Errorf("s9pk: outboard: %w", err)
	}
	p, err := merkle.ParseOutboard(b, h, size, o.group)
	if err != nil {
		return nil, fmt.Errorf("s9pk: outboard: %w", err)
	}
	o.proofs[h] = p
	return p, nil
}
