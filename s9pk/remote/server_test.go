package remote

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// server is an HTTP server over data that misbehaves as told.
type server struct {
	*httptest.Server
	mu       sync.Mutex
	data     []byte
	etag     string
	requests []string // the Range header of each
}

func content(n int) []byte {
	b := make([]byte, n)
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

func serve(t *testing.T, data []byte, odd func(s *server, n int, w http.ResponseWriter, r *http.Request) bool) *server {
	t.Helper()
	s := &server{data: data, etag: `"one"`}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		n := len(s.requests)
		s.requests = append(s.requests, r.Header.Get("Range"))
		data, etag := s.data, s.etag
		s.mu.Unlock()
		if odd != nil && odd(s, n, w, r) {
			return
		}
		if etag != "" {
			w.Header().Set("ETag", etag)
		}
		http.ServeContent(w, r, "x.s9pk", time.Time{}, bytes.NewReader(data))
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *server) asked() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.requests...)
}

// span206 is what a request asks for.
func wanted(r *http.Request, size int) (from, to int) {
	a, b, _ := strings.Cut(strings.TrimPrefix(r.Header.Get("Range"), "bytes="), "-")
	from, _ = strconv.Atoi(a)
	to, err := strconv.Atoi(b)
	if err != nil || to >= size {
		to = size - 1
	}
	return from, to + 1
}

// answer sends a 206 whose header may lie, with n bytes of the body.
func answer(w http.ResponseWriter, first, last, all int, body []byte) {
	w.Header().Set("ETag", `"one"`)
	w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", first, last, all))
	w.Header().Set("Content-Length", strconv.Itoa(last-first+1))
	w.WriteHeader(http.StatusPartialContent)
	w.Write(body)
}

// cut sends part of what was asked for and breaks the connection.
func cut(w http.ResponseWriter, r *http.Request, data []byte, n int) {
	from, to := wanted(r, len(data))
	answer(w, from, to-1, len(data), data[from:min(to, from+n)])
	w.(http.Flusher).Flush()
	panic(http.ErrAbortHandler)
}

// all reads a file front to back in pieces.
func all(r io.ReaderAt, size int64, piece int) ([]byte, error) {
	return io.ReadAll(&piecewise{io.NewSectionReader(r, 0, size), piece})
}

type piecewise struct {
	r io.Reader
	n int
}

func (p *piecewise) Read(b []byte) (int, error) {
	if len(b) > p.n {
		b = b[:p.n]
	}
	return p.r.Read(b)
}
