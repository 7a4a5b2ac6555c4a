package idempotency

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/selfstead/selfstead/patchdb"
)

// Bounds of what is kept.
const (
	Keep     = 24 * time.Hour
	MaxKeys  = 1000
	MaxBytes = 4 << 20  // of all answers
	MaxBody  = 64 << 10 // of one; a longer one is given once and not again
)

var (
	// ErrReused is returned for a key that came with another request before.
	ErrReused = errors.New("idempotency: the key belongs to another request")
	// ErrInterrupted is returned for a key whose request was under way when the
	// server ended.
	ErrInterrupted = errors.New("idempotency: the server ended before the request did")
	// ErrNotKept is returned for a key whose answer was too long to keep.
	ErrNotKept = errors.New("idempotency: the answer was too long to keep")
)

// Answer is what a request was answered.
type Answer struct {
	Status int         `json:"status"`
	Header http.Header `json:"header"`
	Body   []byte      `json:"body"`
}

// entry is one key in the file.
type entry struct {
	Fingerprint string    `json:"fingerprint"`
	Began       time.Time `json:"began"`
	Answer      *Answer   `json:"answer,omitempty"`
	NotKept     bool      `json:"notKept,omitempty"`
}

func (e entry) size() int {
	if e.Answer == nil {
		return 0
	}
	return len(e.Answer.Body)
}

// call is a request that runs.
type call struct {
	fingerprint string
	done        chan struct{}
	answer      Answer
}

// Store is safe for concurrent use. Close it.
type Store struct {
	db  *patchdb.DB
	now func() time.Time

	mu    sync.Mutex // guards what follows
	calls map[string]*call
	keys  map[string]entry // what the file has
	total int              // bytes of their answers
}

// Options tunes Open. The zero value suits production.
type Options struct {
	Now func() time.Time // nil means time.Now
}

// Open opens the file, or makes it.
func Open(ctx context.Context, path string, o Options) (*Store, error) {
	db, err := patchdb.Open(path, patchdb.Options{})
	if err != nil {
		return nil, fmt.Errorf("idempotency: %w", err)
	}
	s := &Store{db: db, now: o.Now, calls: map[string]*call{}}
	if s.now == nil {
		s.now = time.Now
	}
	_, err = db.Update(ctx, func(tx *patchdb.Tx) error {
		if tx.Exists("/keys") {
			return nil
		}
		return tx.Put("", map[string]any{"keys": map[string]entry{}})
	})
	if err == nil {
		s.keys, err = patchdb.Get[map[string]entry](db, "/keys")
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("idempotency: %w", err), db.Close())
	}
	for _, e := range s.keys {
		s.total += e.size()
	}
	return s, nil
}

// Close closes the file. It may be called twice.
func (s *Store) Close() error { return s.db.Close() }

func at(key string) patchdb.Pointer { return patchdb.Join("/keys", key) }

// Do answers a request with a key: by run the first time, and as run did after
// that. fingerprint says what the request asks for. keep is false for an answer
// that the next request should not get: it runs again. replayed says that
// another request's answer is returned. ctx bounds waiting for another request.
func (s *Store) Do(ctx context.Context, key, fingerprint string, run func() (a Answer, keep bool)) (_ Answer, replayed bool, err error) {
	sum := sha256.Sum256([]byte(key))
	key = hex.EncodeToString(sum[:16])
	s.mu.Lock()
	if c, ok := s.calls[key]; ok {
		s.mu.Unlock()
		if c.fingerprint != fingerprint {
			return Answer{}, false, ErrReused
		}
		select {
		case <-c.done:
			return c.answer, true, nil
		case <-ctx.Done():
			return Answer{}, false, ctx.Err()
		}
	}
	c := &call{fingerprint: fingerprint, done: make(chan struct{})}
	s.calls[key] = c
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.calls, key)
		s.mu.Unlock()
		close(c.done)
	}()

	known, err := s.begin(ctx, key, fingerprint)
	switch {
	case err != nil:
		c.answer = Answer{Status: http.StatusInternalServerError}
		return Answer{}, false, err
	case known != nil:
		c.answer = *known
		return *known, true, nil
	}
	keep := false
	defer func() { // run may panic
		if err2 := s.end(context.WithoutCancel(ctx), key, c.answer, keep); err == nil {
			err = err2
		}
	}()
	c.answer, keep = run()
	return c.answer, false, nil
}

// begin notes a key, or returns the answer that it has.
func (s *Store) begin(ctx context.Context, key, fingerprint string) (*Answer, error) {
	now := s.now().UTC()
	fresh := entry{Fingerprint: fingerprint, Began: now}
	s.mu.Lock()
	if e, ok := s.keys[key]; ok && now.Sub(e.Began) < Keep {
		s.mu.Unlock()
		switch {
		case e.Fingerprint != fingerprint:
			return nil, ErrReused
		case e.NotKept:
			return nil, ErrNotKept
		case e.Answer == nil:
			return nil, ErrInterrupted
		}
		return e.Answer, nil
	}
	gone := s.surplusLocked(now)
	for _, old := range gone {
		s.total -= s.keys[old].size()
		delete(s.keys, old)
	}
	s.total -= s.keys[key].size()
	s.keys[key] = fresh
	s.mu.Unlock()
	err := s.write(ctx, func(tx *patchdb.Tx) error {
		for _, old := range gone {
			if tx.Exists(at(old)) {
				if err := tx.Remove(at(old)); err != nil {
					return err
				}
			}
		}
		return tx.PutAll(at(key), fresh)
	})
	if err != nil {
		s.mu.Lock()
		delete(s.keys, key)
		s.mu.Unlock()
	}
	return nil, err
}

// surplusLocked lists the keys that have to go before another comes.
func (s *Store) surplusLocked(now time.Time) []string {
	if len(s.keys) < MaxKeys/2 && s.total <= MaxBytes-MaxBody {
		return nil // what is too old is found when its key is asked for
	}
	names := make([]string, 0, len(s.keys))
	for name := range s.keys {
		if _, running := s.calls[name]; !running {
			names = append(names, name)
		}
	}
	slices.SortFunc(names, func(a, b string) int {
		if c := s.keys[a].Began.Compare(s.keys[b].Began); c != 0 {
			return c
		}
		return cmp.Compare(a, b)
	})
	n, total := 0, s.total
	for n < len(names) && (now.Sub(s.keys[names[n]].Began) >= Keep || len(s.keys)-n >= MaxKeys || total > MaxBytes-MaxBody) {
		total -= s.keys[names[n]].size()
		n++
	}
	return names[:n]
}

func (s *Store) end(ctx context.Context, key string, a Answer, keep bool) error {
	s.mu.Lock()
	e := s.keys[key]
	if !keep {
		delete(s.keys, key)
	} else {
		if e.Answer = &a; len(a.Body) > MaxBody {
			e.Answer, e.NotKept = nil, true
		}
		s.keys[key] = e
		s.total += e.size()
	}
	s.mu.Unlock()
	return s.write(ctx, func(tx *patchdb.Tx) error {
		if !keep {
			return tx.Remove(at(key))
		}
		return tx.PutAll(at(key), e)
	})
}

func (s *Store) write(ctx context.Context, fn func(*patchdb.Tx) error) error {
	if _, err := s.db.Update(ctx, fn); err != nil {
		return fmt.Errorf("idempotency: %w", err)
	}
	return nil
}
