package patchdb

import (
	"context"
	"sync"

	"github.com/selfstead/selfstead/patchdb/internal/tree"
)

// SubscribeOptions tunes Subscribe. The zero value suits most.
type SubscribeOptions struct {
	// Since resumes: the subscriber knows the document at that revision. Where
	// the revisions after it are still held they come first, else a dump does.
	Since *RevisionID
	// Buffer is how many revisions may wait for the subscriber; 0 means 256.
	// With more, or more than 8 MiB of patches, they are exchanged for a dump.
	Buffer int
}

const (
	defaultBuffer = 256
	bufferBytes   = 8 << 20
)

// Event is what a subscriber hears: exactly one of the two is set. A Dump is
// where to start from, also again; a Revision follows what came before.
type Event struct {
	Dump     *Dump
	Revision *Revision
}

// Subscription follows the value at one pointer. Next is for one goroutine at a
// time; Close for any.
type Subscription struct {
	db     *DB
	tokens []string

	mu     sync.Mutex
	dump   *state // to be told before items
	items  []item // revisions that touch the pointer, oldest first
	bytes  int    // of patch text in items
	limit  int    // of items
	closed error
	ready  chan struct{} // has a token when there is something to do

	seen RevisionID // the last revision pushed; guarded by hub.mu
}

// item is a revision with the documents before and after it.
type item struct {
	rev      *revision
	old, new tree.Node // nil for a revision from history
}

// revision is a change as the hub passes it on.
type revision struct {
	id   RevisionID
	ops  []tree.Op // values dropped: they stand in text
	text []byte

	once sync.Once
	made Patch
}

// newRevision takes over ops.
func newRevision(id RevisionID, ops []tree.Op) *revision {
	r := &revision{id: id}
	r.text, r.made = encodeOps(ops)
	r.once.Do(func() {})
	r.keep(ops)
	return r
}

// readRevision takes over ops and the text that they were read from. Most of
// these are never asked for their patch.
func readRevision(id RevisionID, ops []tree.Op, text []byte) *revision {
	r := &revision{id: id, text: text}
	r.keep(ops)
	return r
}

func (r *revision) keep(ops []tree.Op) {
	for i := range ops {
		ops[i].Val = nil
	}
	r.ops = ops
}

func (r *revision) patch() Patch {
	r.once.Do(func() { r.made, _ = ParsePatch(r.text) }) // it was read before
	return r.made
}

// touch says how a revision concerns a place.
type touch int

const (
	touchNone   touch = iota
	touchInside       // all that concerns it happens at or below it
	touchAround       // something above it changed, or elements moved: compare the documents
)

func (r *revision) touches(tokens []string) touch {
	t := touchNone
	for i := range r.ops {
		o := &r.ops[i]
		switch {
		case hasPrefix(o.Path, tokens):
			// A change of whether the very place is in its array moves what follows.
			if o.Array && len(o.Path) == len(tokens) && len(tokens) > 0 {
				return touchAround
			}
			t = touchInside
		case hasPrefix(tokens, o.Path):
			return touchAround
		case o.Array && hasPrefix(tokens, o.Path[:len(o.Path)-1]):
			return touchAround
		}
	}
	return t
}

// rebase returns what of an inside revision concerns the place.
func (r *revision) rebase(tokens []string) Patch {
	if len(tokens) == 0 {
		return r.patch()
	}
	var p Patch
	for i := range r.ops {
		if !hasPrefix(r.ops[i].Path, tokens) {
			continue
		}
		o := r.patch()[i]
		o.Path = joinTokens(r.ops[i].Path[len(tokens):])
		if o.Path == "" {
			// The place itself came, went or changed: to its watcher it is the whole document.
			if o.Op == "remove" {
				o.Value = []byte("null")
			}
			o.Op = "replace"
		}
		p = append(p, o)
	}
	return p
}

// Subscribe follows the value at p: first a dump, or the revisions since
// o.Since where they are still held, then each revision that concerns p, in
// order and relative to p. A place that does not exist counts as null. Whoever
// does not keep up gets a new dump instead of what piled up; nobody is waited
// for.
func (db *DB) Subscribe(p Pointer, o SubscribeOptions) (*Subscription, error) {
	tokens, err := p.Tokens()
	if err != nil {
		return nil, &PointerError{"subscribe", p, err}
	}
	s := &Subscription{db: db, tokens: tokens, limit: o.Buffer, ready: make(chan struct{}, 1)}
	if s.limit <= 0 {
		s.limit = defaultBuffer
	}
	if err := db.hub.join(db, s, o.Since); err != nil {
		return nil, err
	}
	return s, nil
}

// Next waits for the next event. After Close, or DB.Close, it returns ErrClosed.
func (s *Subscription) Next(ctx context.Context) (Event, error) {
	for {
		if ctx.Err() != nil {
			return Event{}, context.Cause(ctx)
		}
		if ev, ok, err := s.TryNext(); ok || err != nil {
			return ev, err
		}
		select {
		case <-s.ready:
		case <-ctx.Done():
		}
	}
}

// TryNext returns the next event if there is one already; ok says so.
func (s *Subscription) TryNext() (ev Event, ok bool, err error) {
	for {
		dump, it, err := s.take()
		switch {
		case err != nil:
			return Event{}, false, err
		case dump != nil:
			return Event{Dump: &Dump{dump.id, tree.Encode(valueAt(dump.root, s.tokens))}}, true, nil
		case it.rev == nil:
			return Event{}, false, nil
		}
		if r := s.revision(it); len(r.Patch) > 0 {
			return Event{Revision: r}, true, nil
		}
	}
}

func (s *Subscription) take() (*state, item, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed != nil {
		return nil, item{}, s.closed
	}
	if d := s.dump; d != nil {
		s.dump = nil
		return d, item{}, nil
	}
	if len(s.items) == 0 {
		s.items = nil // let go of what the list held
		return nil, item{}, nil
	}
	it := s.items[0]
	s.items[0] = item{}
	s.items = s.items[1:]
	s.bytes -= len(it.rev.text)
	return nil, it, nil
}

func (s *Subscription) revision(it item) *Revision {
	r := &Revision{ID: it.rev.id}
	if it.rev.touches(s.tokens) == touchAround && len(s.tokens) > 0 {
		r.Patch = patchOf(tree.Diff(valueAt(it.old, s.tokens), valueAt(it.new, s.tokens)))
	} else {
		r.Patch = it.rev.rebase(s.tokens)
	}
	return r
}

// valueAt is the value at the tokens, null where there is none.
func valueAt(root tree.Node, tokens []string) tree.Node {
	if n := tree.Get(root, tokens); n != nil {
		return n
	}
	return tree.Null{}
}

// push adds a revision, or trades what waits for a dump. The hub calls it,
// for each operation that may concern s; only the first of a revision counts.
func (s *Subscription) push(it item, now *state) {
	if s.seen == it.rev.id {
		return
	}
	s.seen = it.rev.id
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed != nil:
		return
	case s.dump != nil:
		s.dump = now // not yet told: one dump covers this revision too
	case len(s.items) >= s.limit || s.bytes+len(it.rev.text) > bufferBytes && len(s.items) > 0:
		s.items, s.bytes = nil, 0
		s.dump = now
	default:
		s.items = append(s.items, it)
		s.bytes += len(it.rev.text)
	}
	s.signal()
}

func (s *Subscription) signal() {
	select {
	case s.ready <- struct{}{}:
	default:
	}
}

// Close ends the subscription; Next returns ErrClosed from then on. It may be
// called twice.
func (s *Subscription) Close() {
	s.db.hub.leave(s)
	s.end(ErrClosed)
}

func (s *Subscription) end(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed == nil {
		s.closed = err
	}
	s.items, s.dump = nil, nil
	s.signal()
}
