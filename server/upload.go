package server

import (
	"context"
	"errors"
	"io"
	"mime"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/selfstead/selfstead/server/api"
	"github.com/selfstead/selfstead/server/problem"
)

const (
	maxUploads  = 16               // at once, everyone's together
	uploadStall = 60 * time.Second // without a byte, after which an upload is given up
	drainTime   = 30 * time.Second // for what a client still sends after a refusal
	drainBytes  = 1 << 30

	// closeGrace is what a Read under way has to return by itself after Close. A
	// deadline that strikes inside a chunked body spoils the rest of it, and then
	// a client that is still sending would get a reset in place of the answer.
	closeGrace = 250 * time.Millisecond

	drainStopping = 500 * time.Millisecond // the same while the server stops
)

type uploadKey struct{}

// upload is the body of a request that is read while it arrives. Read fails
// once the client has sent nothing for uploadStall. Close makes a Read that
// waits return, within closeGrace; the answer can still be written.
type upload struct {
	r    io.ReadCloser
	w    http.ResponseWriter
	rc   *http.ResponseController
	size int64 // -1: unknown

	contentType string

	mu       sync.Mutex
	deadline time.Time
	closed   bool // Read fails
	reading  bool // a Read is under way
	released bool // the handler has returned: Close does nothing any more
	eof      atomic.Bool
}

func (u *upload) Read(p []byte) (int, error) {
	if err := u.extend(); err != nil {
		return 0, err
	}
	n, err := u.r.Read(p)
	u.mu.Lock()
	u.reading = false
	u.mu.Unlock()
	if errors.Is(err, io.EOF) {
		u.eof.Store(true)
	}
	return n, err
}

// extend moves the deadline on, unless Close has set it.
func (u *upload) extend() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.closed {
		return os.ErrDeadlineExceeded
	}
	u.reading = true
	now := time.Now()
	if now.Add(uploadStall).Sub(u.deadline) < uploadStall/4 {
		return nil
	}
	u.deadline = now.Add(uploadStall)
	return u.rc.SetReadDeadline(u.deadline)
}

// Close interrupts Read. It may be called from another goroutine.
func (u *upload) Close() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.released {
		return nil
	}
	u.closed = true
	if u.reading {
		time.AfterFunc(closeGrace, func() {
			u.mu.Lock()
			defer u.mu.Unlock()
			if u.reading && !u.released {
				u.rc.SetReadDeadline(time.Unix(1, 0)) //nolint:errcheck // the connection is gone then
			}
		})
	}
	return nil
}

// drain reads on for a while after the answer, a moment only once stopping is
// done.
func (u *upload) drain(stopping context.Context) {
	u.mu.Lock()
	u.released = true
	err := u.rc.SetReadDeadline(time.Now().Add(drainTime))
	u.mu.Unlock()
	if err != nil {
		return
	}
	defer context.AfterFunc(stopping, func() { u.rc.SetReadDeadline(time.Now().Add(drainStopping)) })() //nolint:errcheck // it hurries
	io.Copy(io.Discard, io.LimitReader(u.r, drainBytes))                                                //nolint:errcheck // the client is gone then
}

// receiveUpload lets the answer overtake the body. net/http by itself reads on
// before it answers (RFC 9110 section 9.3 allows either), so a client that
// sends slowly would learn late that its first bytes were wrong. The connection
// is closed after a refusal; what the client still sends is read for a while
// first, because a reset on top of unread bytes can cost it the answer.
func (s *Server) receiveUpload(w http.ResponseWriter, r *http.Request, next http.Handler) {
	u := &upload{r: r.Body, w: w, rc: http.NewResponseController(w), size: r.ContentLength, contentType: r.Header.Get("Content-Type")}
	u.rc.EnableFullDuplex() //nolint:errcheck // HTTP/2 always is; test recorders do not matter
	w.Header().Set("Connection", "close")
	next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), uploadKey{}, u)))
	if !u.eof.Load() && u.rc.Flush() == nil {
		u.drain(s.ctx)
	}
}

// sideload hands the body on as it arrives.
func (s *Server) sideload(ctx context.Context, in *sideloadInput) (*started, error) {
	u, _ := ctx.Value(uploadKey{}).(*upload)
	if u == nil {
		return nil, problem.New(http.StatusBadRequest, codeBadRequest, "the request has no body")
	}
	if u.contentType != "" {
		if kind, _, err := mime.ParseMediaType(u.contentType); err != nil || kind == "application/json" || kind == "multipart/form-data" {
			return nil, problem.New(http.StatusUnsupportedMediaType, codeMediaType, "the body is the file itself, as application/octet-stream").
				WithField("header.Content-Type", "not application/octet-stream", u.contentType)
		}
	}
	if s.uploads.Add(1) > maxUploads {
		s.uploads.Add(-1)
		return nil, problem.New(http.StatusServiceUnavailable, codeTooMany, "too many uploads at once").WithHeader("Retry-After", "10")
	}
	defer s.uploads.Add(-1)
	defer context.AfterFunc(s.ctx, func() { u.Close() })() //nolint:errcheck // it interrupts Read
	op, err := s.deps.Services.Sideload(ctx, u, u.size, api.SideloadOptions{Reinstall: in.Reinstall, AcceptSigner: in.AcceptSigner})
	switch {
	case err != nil && s.ctx.Err() != nil:
		return nil, problem.New(http.StatusServiceUnavailable, problem.CodeStopping, "the server is stopping").Because(err)
	case err != nil:
		return nil, err
	}
	u.w.Header().Del("Connection")
	return startedOperation(op), nil
}
