package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"time"
)

// Options tunes Open. The zero value suits production.
type Options struct {
	Client   *http.Client  // nil means one of our own, which has no overall time limit
	Header   http.Header   // added to every request
	Attempts int           // in a row that bring nothing; 0 means 6
	Pause    time.Duration // after the first of them, doubled each time up to 10 s; 0 means 200 ms
	Stall    time.Duration // without a byte before an attempt ends; 0 means 30 s
	Block    int           // what a small read is widened to; 0 means 32 KiB
}

const (
	largeRead  = 128 << 10 // from here on a read opens a stream
	maxSkip    = 2 << 20   // a stream is read on over a gap of this much
	maxWindow  = 64 << 20  // of a response to consecutive reads
	maxCached  = 16 << 20  // bytes kept of small reads and of skipped parts
	resetAfter = 64 << 10  // bytes that make an attempt count as one that brought something
)

func (o Options) withDefaults() Options {
	if o.Attempts == 0 {
		o.Attempts = 6
	}
	if o.Pause == 0 {
		o.Pause = 200 * time.Millisecond
	}
	if o.Stall == 0 {
		o.Stall = 30 * time.Second
	}
	if o.Block == 0 {
		o.Block = 32 << 10
	}
	return o
}

// Stats counts what a Reader has done.
type Stats struct {
	Requests int
	Bytes    int64 // of content received
}

// Reader reads a file at a URL at any offset. It may be shared, but serves one
// read at a time.
type Reader struct {
	ctx    context.Context // ends our own requests: of Open, until Close
	cancel context.CancelFunc
	o      Options
	url    *url.URL

	mu        sync.Mutex
	size      int64
	validator string // for If-Range; "" if the server gives none
	etag      string
	modified  string
	noRanges  bool
	cache     cache
	stream    *stream
	own       *http.Transport // of our own client
	expect    span            // what Expect announced
	next      int64           // where the last request's range ended
	window    int64           // of the next request, if it begins there
	stats     Stats
}

type span struct{ from, to int64 }

// Open asks for the beginning of the file. ctx ends all later reads too.
func Open(ctx context.Context, rawURL string, o Options) (*Reader, error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		return nil, fmt.Errorf("remote: %w", err)
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("remote: %.100q is not an http or https URL", rawURL)
	}
	r := &Reader{o: o.withDefaults(), url: u, size: -1}
	if r.o.Client == nil {
		r.own = http.DefaultTransport.(*http.Transport).Clone()
		r.o.Client = &http.Client{Transport: r.own}
	}
	r.ctx, r.cancel = context.WithCancel(ctx)
	if err := r.first(); err != nil {
		r.cancel()
		return nil, r.fail(0, err)
	}
	return r, nil
}

// first learns the length and whether ranges work.
func (r *Reader) first() error {
	return r.attempt(func() (int64, error) {
		s, err := r.get(0, int64(r.o.Block))
		if err != nil {
			return 0, err
		}
		if r.noRanges { // the whole file follows: keep reading from it
			r.stream = s
			return 0, nil
		}
		defer s.close()
		b := make([]byte, min(int64(r.o.Block), r.size))
		n, err := s.readFull(b)
		r.cache.put(0, b[:n], false)
		r.asked(0, int64(len(b)))
		return int64(n), err
	})
}

// ReadsForward tells package s9pk to verify bodies one after another, so that
// one response carries all of them.
func (r *Reader) ReadsForward() bool { return true }

// Size is the length of the file.
func (r *Reader) Size() int64 { return r.size }

// URL is what is read, without user, password and query.
func (r *Reader) URL() string { return bare(r.url) }

// Stats tells what has been transferred so far.
func (r *Reader) Stats() Stats {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.stats
}

// Expect announces that the n bytes at off will be read front to back, so that
// one request is made for all of them. Package s9pk calls it where it knows. A
// read that jumps ahead by more than 2 MiB is not one of those.
func (r *Reader) Expect(off, n int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.expect = span{off, min(r.size, off+n)}
}

// Close ends the reader and its connection.
func (r *Reader) Close() error {
	r.cancel()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.drop()
	r.cache = cache{}
	if r.own != nil {
		r.own.CloseIdleConnections()
	}
	return nil
}

func (r *Reader) fail(off int64, err error) error {
	var p permanent
	if errors.As(err, &p) {
		err = p.error
	}
	return &Error{URL: bare(r.url), Offset: off, Err: err}
}

// ReadAt reads at an offset of the file. The error is io.EOF at its end, else an
// *Error.
func (r *Reader) ReadAt(p []byte, off int64) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if off < 0 {
		return 0, r.fail(off, errors.New("negative offset"))
	}
	if off >= r.size {
		return 0, io.EOF
	}
	var end error
	if int64(len(p)) > r.size-off {
		p, end = p[:r.size-off], io.EOF
	}
	n := 0
	defer func() {
		if at := off + int64(n); off <= r.expect.from+maxSkip && at > r.expect.from {
			r.expect.from = at // so far it came as announced
		}
	}()
	for n < len(p) {
		if k := r.cache.read(p[n:], off+int64(n)); k > 0 {
			n += k
			continue
		}
		k, err := r.fetch(p[n:], off+int64(n))
		n += k
		if err != nil {
			return n, r.fail(off+int64(n), err)
		}
	}
	return n, end
}

// fetch reads at least one byte from the network.
func (r *Reader) fetch(p []byte, off int64) (got int, err error) {
	// What is cached further on need not come again, if it is worth a request.
	if c := r.cache.after(off); c >= 0 && c-off < int64(len(p)) {
		p = p[:c-off]
	}
	err = r.attempt(func() (int64, error) {
		at, rest := off+int64(got), p[got:]
		var n int
		var err error
		if to := r.reach(at, int64(len(rest))); r.noRanges || to-at >= largeRead || r.stream != nil && r.stream.serves(at) {
			n, err = r.fromStream(rest, at, to)
		} else {
			n, err = r.block(rest, at, to)
		}
		got += n
		return int64(n), err
	})
	return got, err
}

// reach decides how far a request for n bytes at off goes: as far as was
// announced, and twice as far as the one before if it continues that.
func (r *Reader) reach(off, n int64) int64 {
	want := max(n, int64(r.o.Block))
	if off >= r.next && off-r.next <= maxSkip {
		want = max(want, r.window)
	}
	to := off + want
	if off >= r.expect.from && off-r.expect.from <= maxSkip && off < r.expect.to {
		to = max(to, r.expect.to)
	}
	return min(r.size, to)
}

// asked remembers a request for reach; what was announced says nothing of what
// comes behind it.
func (r *Reader) asked(from, to int64) {
	r.next, r.window = to, min(2*(to-from), maxWindow)
	if to == r.expect.to {
		r.window = 0
	}
}

// block reads a small piece, widened.
func (r *Reader) block(p []byte, off, to int64) (int, error) {
	if c := r.cache.after(off); c >= 0 && c < to {
		to = c
	}
	s, err := r.get(off, to)
	if err != nil {
		return 0, err
	}
	if r.noRanges { // since this answer: the file from its beginning
		r.drop()
		r.stream = s
		return r.fromStream(p, off, to)
	}
	defer s.close()
	r.asked(off, to)
	b := make([]byte, to-off)
	n, err := s.readFull(b)
	r.cache.put(off, b[:n], false)
	if n = copy(p, b[:n]); n == len(p) {
		err = nil
	}
	return n, err
}

// fromStream reads from the open response, or from a new one.
func (r *Reader) fromStream(p []byte, off, to int64) (int, error) {
	if r.stream == nil || !r.stream.serves(off) {
		r.drop()
		s, err := r.get(off, to)
		if err != nil {
			return 0, err
		}
		r.asked(off, to)
		r.stream = s
	}
	s := r.stream
	for s.pos < off { // what another goroutine will ask for, or never
		b := make([]byte, min(off-s.pos, largeRead))
		at := s.pos
		n, err := s.readFull(b)
		if off-at <= maxSkip {
			r.cache.put(at, b[:n], true)
		}
		if err != nil {
			r.drop()
			return 0, err
		}
	}
	n, err := s.readFull(p[:min(int64(len(p)), s.end-s.pos)])
	if err != nil || s.pos >= s.end {
		r.drop()
	}
	return n, err
}

func (r *Reader) drop() {
	if r.stream != nil {
		r.stream.close()
		r.stream = nil
	}
}

// attempt repeats step until it succeeds, its error is permanent, or too many in
// a row bring nothing.
func (r *Reader) attempt(step func() (int64, error)) error {
	pause := r.o.Pause
	for fruitless := 0; ; {
		n, err := step()
		if err == nil {
			return nil
		}
		var p permanent
		if errors.As(err, &p) {
			return err
		}
		if r.ctx.Err() != nil {
			return permanent{context.Cause(r.ctx)}
		}
		if n >= resetAfter {
			fruitless, pause = 0, r.o.Pause
		}
		if fruitless++; fruitless >= r.o.Attempts {
			return fmt.Errorf("%d attempts: %w", fruitless, err)
		}
		wait := pause
		var later retryAfter
		if errors.As(err, &later) && later.wait > wait {
			wait = later.wait
		}
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-r.ctx.Done():
			t.Stop()
			return permanent{context.Cause(r.ctx)}
		}
		pause = min(2*pause, 10*time.Second)
	}
}
