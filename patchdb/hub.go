package patchdb

import "sync"

// hub knows who watches what, and the last revisions.
type hub struct {
	limit int // of held; none if not positive

	mu     sync.Mutex
	root   place
	held   []*revision // a ring of the last revisions, without gaps
	first  int         // index of the oldest
	bytes  int
	closed error
}

// place is a node of the tree of watched pointers, so that a revision meets
// only those whom it may concern.
type place struct {
	subs map[*Subscription]struct{}
	kids map[string]*place
}

func newHub(limit int) *hub { return &hub{limit: limit} }

// remember holds a revision for those who resume.
func (h *hub) remember(r *revision) {
	if h.limit <= 0 {
		return
	}
	h.held = append(h.held, r)
	h.bytes += len(r.text)
	for len(h.held)-h.first > h.limit || h.bytes > historyBytes {
		h.bytes -= len(h.held[h.first].text)
		h.held[h.first] = nil
		h.first++
	}
	if h.first > len(h.held)/2 {
		n := copy(h.held, h.held[h.first:])
		clear(h.held[n:])
		h.held, h.first = h.held[:n], 0
	}
}

// since returns the held revisions after id up to now, ok false where one of
// them is gone, or id has not been yet.
func (h *hub) since(id, now RevisionID) (revs []*revision, ok bool) {
	if id > now {
		return nil, false
	}
	held := h.held[h.first:]
	n := uint64(now - id)
	if n > uint64(len(held)) {
		return nil, false
	}
	return held[uint64(len(held))-n:], true
}

// publish makes a durable batch the current state and tells the watchers.
func (h *hub) publish(db *DB, batch []*pending) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, p := range batch {
		if p.rev == nil {
			continue
		}
		db.cur.Store(p.st)
		h.remember(p.rev)
		if h.root.kids == nil && h.root.subs == nil {
			continue
		}
		it := item{p.rev, p.old, p.st.root}
		tell := func(s *Subscription) {
			s.push(it, p.st)
		}
		for i := range p.rev.ops {
			o := &p.rev.ops[i]
			path := o.Path
			if o.Array {
				path = path[:len(path)-1] // elements move: all below the array may change
			}
			h.root.reach(path, tell)
		}
	}
}

// reach calls tell for the watchers above, at and below path.
func (p *place) reach(path []string, tell func(*Subscription)) {
	for _, t := range path {
		for s := range p.subs {
			tell(s)
		}
		if p = p.kids[t]; p == nil {
			return
		}
	}
	p.all(tell)
}

func (p *place) all(tell func(*Subscription)) {
	for s := range p.subs {
		tell(s)
	}
	for _, k := range p.kids {
		k.all(tell)
	}
}

// join registers s and gives it what it has to hear first.
func (h *hub) join(db *DB, s *Subscription, since *RevisionID) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed != nil {
		return h.closed
	}
	now := db.cur.Load()
	s.seen = now.id
	s.dump = now
	if since != nil {
		if revs, ok := h.since(*since, now.id); ok {
			s.resume(revs)
		}
	}
	p := &h.root
	for _, t := range s.tokens {
		k := p.kids[t]
		if k == nil {
			k = &place{}
			if p.kids == nil {
				p.kids = map[string]*place{}
			}
			p.kids[t] = k
		}
		p = k
	}
	if p.subs == nil {
		p.subs = map[*Subscription]struct{}{}
	}
	p.subs[s] = struct{}{}
	if s.dump != nil || len(s.items) > 0 {
		s.signal()
	}
	return nil
}

// Position returns the revision up to which everything that concerns the
// subscription has been told; ok is false while something waits. It is what to
// resume from, and moves on also when only other places change.
func (s *Subscription) Position() (id RevisionID, ok bool) {
	h := s.db.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed != nil || s.dump != nil || len(s.items) > 0 {
		return 0, false
	}
	return s.db.cur.Load().id, true
}

// resume exchanges the dump for revisions, if they say all there is to say.
func (s *Subscription) resume(revs []*revision) {
	var items []item
	bytes := 0
	for _, r := range revs {
		switch r.touches(s.tokens) {
		case touchAround:
			if len(s.tokens) > 0 {
				return // the documents to compare are gone
			}
		case touchNone:
			continue
		}
		items = append(items, item{rev: r})
		bytes += len(r.text)
	}
	if len(items) > s.limit || bytes > bufferBytes {
		return
	}
	s.dump, s.items, s.bytes = nil, items, bytes
}

func (h *hub) leave(s *Subscription) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.root.drop(s.tokens, s)
}

// drop removes s, and places where nobody is left; it reports whether p is one.
func (p *place) drop(tokens []string, s *Subscription) bool {
	if len(tokens) == 0 {
		delete(p.subs, s)
		if len(p.subs) == 0 {
			p.subs = nil
		}
	} else if k := p.kids[tokens[0]]; k != nil && k.drop(tokens[1:], s) {
		delete(p.kids, tokens[0])
		if len(p.kids) == 0 {
			p.kids = nil
		}
	}
	return p.subs == nil && p.kids == nil
}

// close ends all subscriptions.
func (h *hub) close(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = err
	h.root.all(func(s *Subscription) { s.end(err) })
	h.root = place{}
}
