package remote

import (
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// quick does not wait long between attempts; impatient also ends those that stall,
// which a busy machine must not be taken for.
var (
	quick     = Options{Pause: time.Millisecond}
	impatient = Options{Pause: time.Millisecond, Stall: 500 * time.Millisecond, Attempts: 3}
)

func open(t *testing.T, s *server, o Options) *Reader {
	t.Helper()
	r, err := Open(context.Background(), s.URL+"/p?token=secret", o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, r.Close()) })
	return r
}

func TestReadsWhatItIsAsked(t *testing.T) {
	data := content(3<<20 + 17)
	s := serve(t, data, nil)
	r := open(t, s, Options{})
	require.EqualValues(t, len(data), r.Size())
	for _, c := range []struct{ off, n int }{{0, 10}, {100, 32 << 10}, {1 << 20, 5}, {1<<20 + 3, 100}, {1<<20 - 10, 20}, {2 << 20, 300 << 10}, {len(data) - 3, 3}} {
		b := make([]byte, c.n)
		n, err := r.ReadAt(b, int64(c.off))
		require.NoError(t, err)
		require.Equal(t, data[c.off:c.off+c.n], b[:n], "%+v", c)
	}
	n, err := r.ReadAt(make([]byte, 10), int64(len(data)-4))
	require.Equal(t, 4, n)
	require.Equal(t, io.EOF, err)
	_, err = r.ReadAt(make([]byte, 1), int64(len(data)))
	require.Equal(t, io.EOF, err)
	_, err = r.ReadAt(make([]byte, 1), -1)
	require.ErrorContains(t, err, "negative offset")
	require.NotContains(t, err.Error(), "secret")
}

func TestFewRequests(t *testing.T) {
	data := content(20 << 20)
	s := serve(t, data, nil)
	r := open(t, s, Options{})
	for off := int64(0); off < 32<<10; off += 1 << 10 { // small neighbouring reads
		_, err := r.ReadAt(make([]byte, 1<<10), off)
		require.NoError(t, err)
	}
	require.Equal(t, Stats{Requests: 1, Bytes: 32 << 10}, r.Stats())

	got, err := all(r, r.Size(), 4<<10) // front to back: doubled each time
	require.NoError(t, err)
	require.True(t, bytes.Equal(data, got))
	require.LessOrEqual(t, r.Stats().Requests, 11, s.asked())
	require.EqualValues(t, len(data), r.Stats().Bytes, "nothing comes twice")

	r = open(t, s, Options{})
	r.Expect(5<<20, 10<<20)
	b := make([]byte, 10<<20)
	_, err = io.ReadFull(io.NewSectionReader(r, 5<<20, 10<<20), b)
	require.NoError(t, err)
	require.True(t, bytes.Equal(data[5<<20:15<<20], b))
	require.Equal(t, 2, r.Stats().Requests, "announced: one request")
}

func TestParallelReads(t *testing.T) {
	data := content(24 << 20)
	s := serve(t, data, nil)
	r := open(t, s, Options{})
	r.Expect(0, r.Size())
	var wg sync.WaitGroup
	var mu sync.Mutex
	next := 0
	for range 4 {
		wg.Go(func() {
			b := make([]byte, 1<<20)
			for {
				mu.Lock()
				off := next
				next += len(b)
				mu.Unlock()
				if off >= len(data) {
					return
				}
				_, err := r.ReadAt(b, int64(off))
				if err != nil || !bytes.Equal(b, data[off:off+len(b)]) {
					t.Errorf("at %d: %v", off, err)
					return
				}
			}
		})
	}
	wg.Wait()
	require.Less(t, r.Stats().Requests, 24, "mostly one response")
}

func TestMishaps(t *testing.T) {
	data := content(2 << 20)
	type odd = func(s *server, n int, w http.ResponseWriter, r *http.Request) bool
	once := func(f func(s *server, w http.ResponseWriter, r *http.Request)) odd {
		return func(s *server, n int, w http.ResponseWriter, r *http.Request) bool {
			if n == 1 {
				f(s, w, r)
			}
			return n == 1
		}
	}
	for name, c := range map[string]struct {
		odd  odd
		want error  // nil: reading succeeds all the same
		text string // of the error
	}{
		"cut after each 100 KiB": {odd: func(s *server, n int, w http.ResponseWriter, r *http.Request) bool {
			cut(w, r, data, 100<<10)
			return true
		}},
		"cut before the first byte, once": {odd: once(func(s *server, w http.ResponseWriter, r *http.Request) { cut(w, r, data, 0) })},
		"cut always": {odd: func(s *server, n int, w http.ResponseWriter, r *http.Request) bool {
			if n > 0 {
				cut(w, r, data, 10)
			}
			return false
		}, want: io.ErrUnexpectedEOF, text: "6 attempts"},
		"no answer, once": {odd: once(func(s *server, w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) })},
		"busy, once":      {odd: once(func(s *server, w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })},
		"gone": {odd: once(func(s *server, w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusNotFound) }),
			want: ErrStatus, text: "404"},
		"stalls after some bytes, once": {odd: once(func(s *server, w http.ResponseWriter, r *http.Request) {
			from, to := wanted(r, len(data))
			answer(w, from, to-1, len(data), data[from:from+1000])
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		})},
		"stalls before the answer, once": {odd: once(func(s *server, w http.ResponseWriter, r *http.Request) { <-r.Context().Done() })},
		"stalls always": {odd: func(s *server, n int, w http.ResponseWriter, r *http.Request) bool {
			if n > 0 {
				<-r.Context().Done()
			}
			return n > 0
		}, want: ErrStalled},
		"changes": {odd: once(func(s *server, w http.ResponseWriter, r *http.Request) {
			w.Header().Set("ETag", `"two"`)
			w.Header().Set("Content-Length", "2097152")
			w.Write(data[:100])
		}), want: ErrChanged},
		"changes its length": {odd: once(func(s *server, w http.ResponseWriter, r *http.Request) {
			from, to := wanted(r, len(data))
			answer(w, from, to-1, len(data)+1, data[from:to])
		}), want: ErrChanged, text: "2097153 bytes now"},
		"changes and ignores If-Range": {odd: once(func(s *server, w http.ResponseWriter, r *http.Request) {
			r.Header.Del("If-Range")
			w.Header().Set("ETag", `"two"`)
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
		}), want: ErrChanged},
		"another range": {odd: once(func(s *server, w http.ResponseWriter, r *http.Request) {
			from, to := wanted(r, len(data))
			answer(w, from-1, to-2, len(data), data[from-1:to-1])
		}), want: ErrRange},
		"a longer range": {odd: once(func(s *server, w http.ResponseWriter, r *http.Request) {
			from, _ := wanted(r, len(data))
			answer(w, from, len(data)-1, len(data), data[from:])
		}), want: ErrRange},
		"a shorter range": {odd: once(func(s *server, w http.ResponseWriter, r *http.Request) {
			from, _ := wanted(r, len(data))
			answer(w, from, from+9, len(data), data[from:from+10])
		})},
		"no range": {odd: once(func(s *server, w http.ResponseWriter, r *http.Request) { w.WriteHeader(206); w.Write([]byte("x")) }),
			want: ErrRange},
		"nonsense range": {odd: once(func(s *server, w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Range", "bytes 5-x/10")
			w.WriteHeader(206)
		}), want: ErrRange},
		"several ranges": {odd: once(func(s *server, w http.ResponseWriter, r *http.Request) {
			r.Header.Set("Range", "bytes=0-1,5-9")
			r.Header.Del("If-Range")
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
		}), want: ErrRange},
		"range not satisfiable": {odd: once(func(s *server, w http.ResponseWriter, r *http.Request) { w.WriteHeader(416) }), want: ErrChanged},
		"compressed": {odd: once(func(s *server, w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			answer(w, 32<<10, 32<<10+9, len(data), []byte("0123456789"))
		}), want: ErrRange},
		"stops doing ranges": {odd: func(s *server, n int, w http.ResponseWriter, r *http.Request) bool {
			if n > 0 {
				r.Header.Del("Range")
			}
			return false
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, data, c.odd)
			o := quick
			if strings.HasPrefix(name, "stalls") {
				o = impatient
			}
			r := open(t, s, o)
			got, err := all(r, r.Size(), 50<<10)
			if c.want == nil {
				require.NoError(t, err)
				require.True(t, bytes.Equal(data, got))
				return
			}
			require.ErrorIs(t, err, c.want)
			require.ErrorContains(t, err, c.text)
			require.True(t, bytes.HasPrefix(data, got), "what was handed on is right")
		})
	}
}

func TestNoRanges(t *testing.T) {
	data := content(5 << 20)
	s := serve(t, data, func(s *server, n int, w http.ResponseWriter, r *http.Request) bool {
		r.Header.Del("Range")
		return false
	})
	r := open(t, s, Options{})
	b := make([]byte, 100)
	for _, off := range []int64{4 << 20, 10, 3 << 20} { // skip, back, skip
		_, err := r.ReadAt(b, off)
		require.NoError(t, err)
		require.Equal(t, data[off:off+100], b)
	}
	require.Equal(t, 2, r.Stats().Requests)
}

func TestOpenRefused(t *testing.T) {
	for name, odd := range map[string]func(s *server, n int, w http.ResponseWriter, r *http.Request) bool{
		"no length": func(s *server, n int, w http.ResponseWriter, r *http.Request) bool {
			w.Write([]byte("x"))
			w.(http.Flusher).Flush()
			return true
		},
		"unknown length": func(s *server, n int, w http.ResponseWriter, r *http.Request) bool {
			w.Header().Set("Content-Range", "bytes 0-9/*")
			w.WriteHeader(206)
			return true
		},
		"compressed": func(s *server, n int, w http.ResponseWriter, r *http.Request) bool {
			w.Header().Set("Content-Encoding", "gzip")
			w.Header().Set("Content-Length", "23")
			gzip.NewWriter(w).Close()
			return true
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, content(10), odd)
			_, err := Open(context.Background(), s.URL, quick)
			var e *Error
			require.ErrorAs(t, err, &e)
		})
	}
	for _, u := range []string{"ftp://x/y", "nothing", "http://", "http://%zz"} {
		_, err := Open(context.Background(), u, quick)
		require.ErrorContains(t, err, "remote: ", u)
	}
}

func TestCancel(t *testing.T) {
	data := content(1 << 20)
	ctx, cancel := context.WithCancel(context.Background())
	s := serve(t, data, func(s *server, n int, w http.ResponseWriter, r *http.Request) bool {
		if n > 0 {
			cancel()
			<-r.Context().Done()
		}
		return n > 0
	})
	r, err := Open(ctx, s.URL, Options{})
	require.NoError(t, err)
	_, err = r.ReadAt(make([]byte, 10), 500<<10)
	require.ErrorIs(t, err, context.Canceled)
	require.NoError(t, r.Close())
	require.NoError(t, r.Close())
}
