package s9pk

import (
	"container/heap"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"slices"

	"github.com/selfstead/selfstead/s9pk/merkle"
)

// StreamVerifier proves an archive while it arrives. Write fails as soon as the
// bytes show a fault: at the first wrong byte of the magic, with the last byte
// of a signature, a table or a body. Memory is what has been received of tables
// and manifest.json; bodies are hashed as they pass. It is for one goroutine.
type StreamVerifier struct {
	o   Options
	t   *tables
	end int64 // announced length, or math.MaxInt64
	off int64
	err error

	head    []byte
	signed  *Header // without where its table lies
	header  *Header
	waiting regionHeap
	active  []*region
	bodies  map[stretch]merkle.Hash
	again   int64 // bytes read back from Options.Received
	sum     Summary
}

// Summary is what a StreamVerifier has proven in the end.
type Summary struct {
	Header   Header
	Size     int64             // bytes received
	Files    int               // bodies that are present
	Bytes    int64             // their length
	Root     *merkle.Directory // without content
	Manifest *Manifest         // nil where the archive is no package
}

// maxOverlap is how many tables and bodies may share one byte; writers let none.
const maxOverlap = 16

type stretch struct{ pos, size int64 }

// region is a table or a body that is waited for or being received.
type region struct {
	stretch
	table *pending // nil for a body
	path  string
	hash  merkle.Hash
	h     *merkle.Hasher // of a body
	keep  bool
	buf   []byte // of a table, and of what is kept
	got   int64
}

type regionHeap []*region

func (h regionHeap) Len() int           { return len(h) }
func (h regionHeap) Less(i, j int) bool { return h[i].pos < h[j].pos }
func (h regionHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *regionHeap) Push(x any)        { *h = append(*h, x.(*region)) }
func (h *regionHeap) Pop() any {
	old := *h
	r := old[len(old)-1]
	*h = old[:len(old)-1]
	return r
}

// NewStreamVerifier returns a verifier that waits for the first byte.
func NewStreamVerifier(o Options) *StreamVerifier {
	sv := &StreamVerifier{o: o, t: newTables(o), end: math.MaxInt64, bodies: map[stretch]merkle.Hash{}}
	if o.Size > 0 {
		sv.end = o.Size
	}
	return sv
}

// Received is the number of bytes taken so far.
func (sv *StreamVerifier) Received() int64 { return sv.off }

// Header is the proven header, nil until it is there.
func (sv *StreamVerifier) Header() *Header { return sv.header }

// Manifest is the proven manifest, nil until it is there.
func (sv *StreamVerifier) Manifest() *Manifest { return sv.sum.Manifest }

// Err is the fault that was found, nil if there was none so far.
func (sv *StreamVerifier) Err() error { return sv.err }

// Write takes the next bytes. After an error, which is an *EntryError or an
// error of Options.Received, it keeps returning it; what p held before the
// fault is counted.
func (sv *StreamVerifier) Write(p []byte) (int, error) {
	total := len(p)
	for len(p) > 0 && sv.err == nil {
		n, err := sv.step(p)
		p = p[n:]
		sv.err = err
	}
	return total - len(p), sv.err
}

// step takes bytes up to the next place where something begins or ends.
func (sv *StreamVerifier) step(p []byte) (int, error) {
	if sv.off >= sv.end {
		return 0, &EntryError{Op: "verify", Path: "", Offset: sv.off, Err: fmt.Errorf("%w: more than the announced %d bytes", ErrSize, sv.end)}
	}
	n := min(int64(len(p)), sv.end-sv.off)
	if sv.header == nil {
		n := int(min(n, sv.headStep()))
		sv.head = append(sv.head, p[:n]...)
		sv.off += int64(n)
		return n, sv.checkHead()
	}
	for len(sv.waiting) > 0 && sv.waiting[0].pos == sv.off {
		r := heap.Pop(&sv.waiting).(*region)
		if err := sv.activate(r); err != nil {
			return 0, err
		}
	}
	if len(sv.waiting) > 0 {
		n = min(n, sv.waiting[0].pos-sv.off)
	}
	for _, r := range sv.active {
		n = min(n, r.size-r.got)
	}
	for _, r := range sv.active {
		r.feed(p[:n])
	}
	sv.off += n
	return int(n), sv.finish()
}

// headStep is how far to read before there is something to judge.
func (sv *StreamVerifier) headStep() int64 {
	for _, at := range []int64{1, 2, 3, 35, signedSize, HeaderSize} {
		if sv.off < at {
			return at - sv.off
		}
	}
	return 0
}

func (sv *StreamVerifier) checkHead() (err error) {
	switch len(sv.head) {
	case 1, 2, 3, 35:
		_, err = checkSigned(sv.head, sv.o.Commitment)
		return err
	case signedSize:
		sv.signed, err = checkSigned(sv.head, sv.o.Commitment)
		return err
	case HeaderSize:
	default:
		return nil
	}
	if sv.header, err = sv.signed.place(sv.head); err != nil {
		return err
	}
	sv.sum.Header, sv.head = *sv.header, nil
	if err := sv.wantTable(rootPending(sv.header)); err != nil {
		return err
	}
	return sv.finish()
}

func (sv *StreamVerifier) wantTable(p pending) error {
	if err := sv.t.announce(p, sv.end); err != nil {
		return err
	}
	return sv.want(&region{stretch: stretch{int64(p.entry.Position), int64(p.entry.TableSize)}, table: &p, path: p.path, hash: p.entry.Hash})
}

func (sv *StreamVerifier) wantBody(path string, e *merkle.Entry) error {
	r := &region{stretch: stretch{saturate(e.Position), saturate(e.Size)}, path: path, hash: e.Hash}
	outside := e.Size > math.MaxInt64 || r.pos > math.MaxInt64-r.size || r.pos+r.size > sv.end
	if r.size == 0 { // it lies anywhere that is a position at all
		outside = r.pos == math.MaxInt64
	}
	if outside {
		return r.fail(fmt.Errorf("%w: %d bytes at %d lie beyond the end", ErrTruncated, e.Size, e.Position))
	}
	sv.sum.Files++
	sv.sum.Bytes += r.size
	if path == ManifestPath {
		if r.size <= sv.t.l.Manifest {
			r.keep = true
		} else if sv.o.Package {
			return r.fail(fmt.Errorf("%w: %d bytes, at most %d are read", ErrLimit, r.size, sv.t.l.Manifest))
		}
	}
	if h, ok := sv.bodies[r.stretch]; ok && h == r.hash && !r.keep {
		return nil // the same bytes with the same hash are proven once
	}
	sv.bodies[r.stretch] = r.hash
	return sv.want(r)
}

func (r *region) fail(err error) error {
	op := "verify"
	if r.table != nil {
		op = "open"
	}
	return &EntryError{Op: op, Path: r.path, Offset: r.pos, Err: err}
}

// want queues a region; what has passed already is read back.
func (sv *StreamVerifier) want(r *region) error {
	if r.table == nil {
		r.h = merkle.NewHasher()
	}
	switch {
	case r.size > 0:
	case r.table != nil:
		return sv.finishTable(r)
	default:
		return sv.finishBody(r) // an empty body needs no place
	}
	if r.pos > sv.off {
		heap.Push(&sv.waiting, r)
		return nil
	}
	if past := min(sv.off-r.pos, r.size); past > 0 {
		if err := sv.readBack(r, past); err != nil {
			return err
		}
	}
	return sv.activate(r)
}

func (sv *StreamVerifier) activate(r *region) error {
	if sv.active = append(sv.active, r); len(sv.active) > maxOverlap {
		return r.fail(fmt.Errorf("%w: more than %d tables and bodies overlap", ErrUnsafe, maxOverlap))
	}
	return nil
}

func (sv *StreamVerifier) readBack(r *region, n int64) error {
	if sv.o.Received == nil {
		return r.fail(ErrNotStreamable)
	}
	if sv.again += n; sv.again > 4*sv.off+1<<20 {
		return r.fail(fmt.Errorf("%w: bodies overlap", ErrUnsafe))
	}
	bp := copyBuffers.Get().(*[]byte)
	defer copyBuffers.Put(bp)
	for r.got < n {
		b := (*bp)[:min(int64(len(*bp)), n-r.got)]
		if got, err := sv.o.Received.ReadAt(b, r.pos+r.got); got < len(b) {
			if err == nil || errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return fmt.Errorf("s9pk: verify: read back what was received: %w", err)
		}
		r.feed(b)
	}
	return nil
}

func (r *region) feed(p []byte) {
	if r.h != nil {
		r.h.Write(p)
	}
	if r.h == nil || r.keep {
		r.buf = append(r.buf, p...)
	}
	r.got += int64(len(p))
}

// finish judges every region that is complete; a table brings new ones.
func (sv *StreamVerifier) finish() error {
	for {
		i := slices.IndexFunc(sv.active, func(r *region) bool { return r.got == r.size })
		if i < 0 {
			return nil
		}
		r := sv.active[i]
		sv.active = slices.Delete(sv.active, i, i+1)
		var err error
		if r.table != nil {
			err = sv.finishTable(r)
		} else {
			err = sv.finishBody(r)
		}
		if err != nil {
			return err
		}
	}
}

func (sv *StreamVerifier) finishTable(r *region) error {
	below, err := sv.t.admit(*r.table, r.buf)
	if err != nil {
		return err
	}
	d := r.table.entry.Dir
	if r.path == "/" {
		sv.sum.Root = d
		if err := sv.checkPackage(d); err != nil {
			return err
		}
	}
	for _, p := range below {
		if err := sv.wantTable(p); err != nil {
			return err
		}
	}
	for _, e := range d.Entries() {
		if e.Kind == merkle.KindFile {
			if err := sv.wantBody(r.table.child(e.Name), e); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkPackage refuses what cannot become a package once the root is known.
func (sv *StreamVerifier) checkPackage(root *merkle.Directory) error {
	if !sv.o.Package {
		return nil
	}
	var err error
	switch e := root.Entry(ManifestPath); {
	case e == nil:
		err = fs.ErrNotExist
	case e.Kind == merkle.KindMissing:
		err = ErrMissing
	case e.Kind == merkle.KindDirectory:
		err = fmt.Errorf("%w: it is a directory", ErrKind)
	default:
		return nil
	}
	return &EntryError{Op: "read", Path: ManifestPath, Offset: -1, Err: err}
}

func (sv *StreamVerifier) finishBody(r *region) error {
	if got := r.h.Sum(); got != r.hash {
		return r.fail(fmt.Errorf("%w: content hashes to %s, signed is %s", ErrHashMismatch, got, r.hash))
	}
	if r.path != ManifestPath || !r.keep {
		return nil
	}
	m, err := ParseManifest(r.buf)
	if err != nil {
		if sv.o.Package {
			return &EntryError{Op: "read", Path: r.path, Offset: r.pos, Err: err}
		}
		return nil
	}
	sv.sum.Manifest = m
	return nil
}

// Close says that nothing more comes. It returns a summary when every table and
// every body is there and proven, and otherwise the fault, which wraps
// ErrTruncated for what is not there.
func (sv *StreamVerifier) Close() (*Summary, error) {
	if sv.err != nil {
		return nil, sv.err
	}
	sv.err = sv.incomplete()
	if sv.err != nil {
		return nil, sv.err
	}
	sv.sum.Size = sv.off
	sum := sv.sum
	sv.err = fs.ErrClosed // of later writes
	return &sum, nil
}

func (sv *StreamVerifier) incomplete() error {
	if sv.header == nil {
		return headerError(sv.off, fmt.Errorf("%w: header of %d bytes, need %d", ErrTruncated, sv.off, HeaderSize))
	}
	for _, r := range append(slices.Clone(sv.active), sv.waiting...) {
		return r.fail(fmt.Errorf("%w: %d of %d bytes", ErrTruncated, r.got, r.size))
	}
	if sv.o.Size > 0 && sv.off < sv.o.Size {
		return &EntryError{Op: "verify", Path: "", Offset: sv.off, Err: fmt.Errorf("%w: %d of the announced %d bytes", ErrTruncated, sv.off, sv.o.Size)}
	}
	return nil
}
