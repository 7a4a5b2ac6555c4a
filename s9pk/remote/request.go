package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// stream is one response's body, at pos of the file, which ends at end.
type stream struct {
	r        *Reader
	body     io.ReadCloser
	pos, end int64
	cancel   context.CancelCauseFunc
	ctx      context.Context // of the request
	timer    *time.Timer     // ends the request when it fires
}

func (s *stream) serves(off int64) bool {
	return off >= s.pos && off < s.end && (off-s.pos <= maxSkip || s.r.noRanges)
}

// readFull fills p, no further than the response goes.
func (s *stream) readFull(p []byte) (int, error) {
	n := 0
	for n < len(p) && s.pos < s.end {
		s.timer.Reset(s.r.o.Stall)
		k, err := s.body.Read(p[n:min(int64(len(p)), int64(n)+s.end-s.pos)])
		n += k
		s.pos += int64(k)
		s.r.stats.Bytes += int64(k)
		if n == len(p) {
			break
		}
		if err != nil {
			if cause := context.Cause(s.ctx); cause != nil {
				err = cause
			}
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return n, fmt.Errorf("after %d bytes: %w", s.pos, err)
		}
	}
	s.timer.Stop()
	if n < len(p) {
		return n, io.ErrUnexpectedEOF // the answer was for less than was asked: ask again
	}
	return n, nil
}

func (s *stream) close() {
	s.timer.Stop()
	if s.pos >= s.end { // lets the connection be used again
		var one [1]byte
		s.timer.Reset(s.r.o.Stall)
		s.body.Read(one[:])
		s.timer.Stop()
	}
	s.cancel(nil)
	s.body.Close()
}

type retryAfter struct {
	error
	wait time.Duration
}

func (r retryAfter) Unwrap() error { return r.error }

// get asks for the bytes from..to. The stream begins at from, or at 0 where the
// server does not do ranges.
func (r *Reader) get(from, to int64) (*stream, error) {
	ctx, cancel := context.WithCancelCause(r.ctx)
	s := &stream{r: r, cancel: cancel, ctx: ctx}
	s.timer = time.AfterFunc(r.o.Stall, func() { cancel(ErrStalled) })
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.url.String(), nil)
	if err != nil {
		return nil, permanent{err}
	}
	for k, v := range r.o.Header {
		req.Header[k] = v
	}
	req.Header.Set("Accept-Encoding", "identity")
	if !r.noRanges {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", from, to-1))
		if r.validator != "" {
			req.Header.Set("If-Range", r.validator)
		}
	}
	r.stats.Requests++
	resp, err := r.o.Client.Do(req)
	if err != nil {
		s.timer.Stop()
		if cause := context.Cause(ctx); cause != nil && r.ctx.Err() == nil {
			err = cause
		}
		cancel(nil)
		return nil, err
	}
	s.body = resp.Body
	if err := r.accept(resp, s, from, to); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// accept checks an answer against what was asked and what is known of the file.
func (r *Reader) accept(resp *http.Response, s *stream, from, to int64) error {
	total := int64(-1)
	switch code := resp.StatusCode; {
	case code == http.StatusPartialContent:
		first, last, all, err := contentRange(resp.Header.Get("Content-Range"))
		if err != nil {
			return permanent{err}
		}
		if first != from || last >= to || last < first || all <= last {
			return permanent{fmt.Errorf("%w: asked for bytes %d-%d, got %d-%d of %d", ErrRange, from, to-1, first, last, all)}
		}
		s.pos, s.end, total = first, last+1, all
	case code == http.StatusOK:
		if total = resp.ContentLength; total < 0 {
			return permanent{ErrLength}
		}
		s.pos, s.end = 0, total
	case code == http.StatusRequestedRangeNotSatisfiable:
		if r.size < 0 { // an empty file has no first byte
			return permanent{fmt.Errorf("%w: the file is empty", ErrLength)}
		}
		return permanent{ErrChanged}
	case code == http.StatusTooManyRequests, code == http.StatusRequestTimeout, code >= 500:
		err := fmt.Errorf("%w: %s", ErrStatus, resp.Status)
		if n, aerr := strconv.Atoi(resp.Header.Get("Retry-After")); aerr == nil && n > 0 {
			return retryAfter{err, min(time.Duration(n)*time.Second, time.Minute)}
		}
		return err
	default:
		return permanent{fmt.Errorf("%w: %s", ErrStatus, resp.Status)}
	}
	if enc := resp.Header.Get("Content-Encoding"); enc != "" && !strings.EqualFold(enc, "identity") {
		return permanent{fmt.Errorf("%w: content encoding %.30q was not asked for", ErrRange, enc)}
	}
	return r.same(resp, total)
}

// same learns what tells this file from another, or compares it.
func (r *Reader) same(resp *http.Response, total int64) error {
	etag, modified := resp.Header.Get("ETag"), resp.Header.Get("Last-Modified")
	if r.size < 0 {
		r.size, r.etag, r.modified = total, etag, modified
		r.noRanges = resp.StatusCode == http.StatusOK
		switch { // RFC 9110 section 13.1.5: a weak tag will not do
		case etag != "" && !strings.HasPrefix(etag, "W/"):
			r.validator = etag
		case etag == "" && modified != "":
			r.validator = modified
		}
		return nil
	}
	switch {
	case total != r.size:
		return permanent{fmt.Errorf("%w: it has %d bytes now, %d before", ErrChanged, total, r.size)}
	case r.etag != "" && etag != "" && etag != r.etag, r.etag == "" && r.modified != "" && modified != "" && modified != r.modified:
		return permanent{ErrChanged}
	case resp.StatusCode == http.StatusOK && !r.noRanges:
		if r.validator != "" && etag == "" && modified == "" {
			return permanent{ErrChanged} // what If-Range makes of a file that is another one
		}
		r.noRanges = true // the same file, from a server that no longer does ranges
	}
	return nil
}

// contentRange reads "bytes first-last/all".
func contentRange(h string) (first, last, all int64, err error) {
	bad := fmt.Errorf("%w: Content-Range %.60q", ErrRange, h)
	spec, ok := strings.CutPrefix(h, "bytes ")
	if !ok {
		return 0, 0, 0, bad
	}
	rng, total, ok := strings.Cut(spec, "/")
	if !ok {
		return 0, 0, 0, bad
	}
	if total == "*" {
		return 0, 0, 0, permanent{ErrLength}
	}
	a, b, ok := strings.Cut(rng, "-")
	if !ok {
		return 0, 0, 0, bad
	}
	for _, v := range []struct {
		text string
		to   *int64
	}{{a, &first}, {b, &last}, {total, &all}} {
		if *v.to, err = strconv.ParseInt(v.text, 10, 64); err != nil || *v.to < 0 {
			return 0, 0, 0, bad
		}
	}
	return first, last, all, nil
}
