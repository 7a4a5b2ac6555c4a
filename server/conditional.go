package server

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash/maphash"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"
	"github.com/go-chi/chi/v5"

	"github.com/selfstead/selfstead/server/idempotency"
	"github.com/selfstead/selfstead/server/problem"
)

// Codes of problems with Idempotency-Key.
const (
	codeKeyReused   = "idempotency-key-reused"
	codeInterrupted = "request-interrupted"
	codeNotKept     = "answer-not-kept"
)

const maxJSONBody = 1 << 20 // huma's own bound

// held is an answer that is written later.
type held struct {
	status int
	header http.Header
	body   bytes.Buffer
}

func newHeld() *held                            { return &held{header: http.Header{}} }
func (h *held) Header() http.Header             { return h.header }
func (h *held) SetReadDeadline(time.Time) error { return nil } // the body is read already
func (h *held) WriteHeader(status int) {
	if h.status == 0 {
		h.status = status
	}
}
func (h *held) Write(p []byte) (int, error) {
	h.WriteHeader(http.StatusOK)
	return h.body.Write(p)
}

func isWrite(method string) bool {
	switch method {
	case http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete:
		return true
	}
	return false
}

// takesKey reports whether a route heeds Idempotency-Key: every write of those
// who are signed in. The others answer with secrets, which are not kept.
func takesKey(op *huma.Operation) bool {
	return isWrite(op.Method) && !isSecurity(op.Security, forAnyone)
}

// once lets a request with an Idempotency-Key run only the first time. It goes
// on when its client is gone, which will ask again.
func (s *Server) once(hc huma.Context, next func(huma.Context)) {
	op := hc.Operation()
	r, w := humachi.Unwrap(hc)
	key := r.Header.Get("Idempotency-Key")
	if key == "" || s.deps.Requests == nil || !takesKey(op) {
		next(hc)
		return
	}
	req := info(hc.Context())
	refuse := func(p *problem.Problem) { writeProblem(w, p.WithInstance(req.instance())) }
	if len(key) > 255 {
		refuse(problem.New(http.StatusUnprocessableEntity, problem.CodeInvalid, "the key is too long").WithField("header.Idempotency-Key", "expected length <= 255", nil))
		return
	}
	hash := sha256.New()
	io.WriteString(hash, op.Method+" "+r.URL.Path+"?"+r.URL.RawQuery+"\n"+r.Header.Get("If-Match")+"\n") //nolint:errcheck // to memory
	upload, _ := hc.Context().Value(uploadKey{}).(*upload)
	if upload == nil {
		r.Body = s.readBody(w, r, hash)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(hc.Context()))
	defer cancel()
	defer context.AfterFunc(s.requests, cancel)()
	a, replayed, err := s.deps.Requests.Do(hc.Context(), key, hex.EncodeToString(hash.Sum(nil)), func() (idempotency.Answer, bool) {
		h := newHeld()
		next(humachi.NewContext(op, r.WithContext(ctx), h))
		keep := h.status < 500 && h.status != http.StatusRequestTimeout && h.status != http.StatusTooManyRequests && h.status != statusClientGone
		return idempotency.Answer{Status: h.status, Header: h.header, Body: h.body.Bytes()}, keep
	})
	switch {
	case errors.Is(err, idempotency.ErrReused):
		refuse(problem.New(http.StatusConflict, codeKeyReused, "the key came with another request before").WithField("header.Idempotency-Key", "belongs to another request", nil))
		return
	case errors.Is(err, idempotency.ErrInterrupted):
		refuse(problem.New(http.StatusConflict, codeInterrupted, "the server ended while this request ran; look whether it took effect, and ask again with another key").
			WithFix(http.MethodGet, "/v1/state", "look at what is"))
		return
	case errors.Is(err, idempotency.ErrNotKept):
		refuse(problem.New(http.StatusConflict, codeNotKept, "the request took effect, and its answer was too long to keep"))
		return
	case err != nil && a.Status == 0:
		writeProblem(w, s.fail(req, err))
		return
	case err != nil:
		s.log.Error("an answer cannot be kept", "request", req.id, "err", err)
	}
	for name, values := range a.Header {
		w.Header()[name] = values
	}
	if replayed {
		w.Header().Set("Idempotency-Replayed", "true")
	}
	w.WriteHeader(a.Status)
	w.Write(a.Body) //nolint:errcheck // the client is gone then
}

// statusClientGone is what a handler answers when its client has gone.
const statusClientGone = 499

// readBody reads a request's body into memory and the hash; the body that it
// returns fails where reading failed.
func (s *Server) readBody(w http.ResponseWriter, r *http.Request, hash io.Writer) io.ReadCloser {
	rc := http.NewResponseController(w)
	rc.SetReadDeadline(time.Now().Add(s.opts.BodyTimeout)) //nolint:errcheck // test recorders have none
	defer rc.SetReadDeadline(time.Time{})                  //nolint:errcheck // the same
	text, err := io.ReadAll(io.LimitReader(r.Body, maxJSONBody+1))
	hash.Write(text) //nolint:errcheck // to memory
	if err == nil {
		err = io.EOF
	}
	return io.NopCloser(io.MultiReader(bytes.NewReader(text), failing{err}))
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// tagged are the paths of resources that can be read and written: their ETag is
// a digest of what GET answers, and their writes heed If-Match.
type tagged struct {
	paths map[string]bool
	seed  maphash.Seed
	locks [64]sync.Mutex // of writes, by path
}

func (t *tagged) lock(path string) *sync.Mutex {
	return &t.locks[maphash.String(t.seed, path)%uint64(len(t.locks))]
}

func bodyTag(body []byte) string {
	sum := sha256.Sum256(body)
	return `"` + hex.EncodeToString(sum[:12]) + `"`
}

// conditional answers reads of tagged resources with their ETag, and does
// writes only to what their If-Match names (RFC 9110 section 13.1). Writes of
// one resource come one after the other, so that none slips in between.
func (s *Server) conditional(hc huma.Context, next func(huma.Context)) {
	op := hc.Operation()
	if !s.tagged.paths[op.Path] {
		next(hc)
		return
	}
	r, w := humachi.Unwrap(hc)
	if op.Method == http.MethodGet {
		h := newHeld()
		next(humachi.NewContext(op, r.WithContext(hc.Context()), h))
		for name, values := range h.header {
			w.Header()[name] = values
		}
		if h.status == http.StatusOK {
			tag := bodyTag(h.body.Bytes())
			w.Header().Set("ETag", tag)
			if matches(r.Header.Get("If-None-Match"), tag) {
				w.Header().Del("Content-Type")
				w.WriteHeader(http.StatusNotModified)
				return
			}
		}
		w.WriteHeader(h.status)
		w.Write(h.body.Bytes()) //nolint:errcheck // the client is gone then
		return
	}
	mu := s.tagged.lock(r.URL.Path)
	mu.Lock()
	defer mu.Unlock()
	if want := r.Header.Get("If-Match"); want != "" {
		if now := s.currentTag(hc.Context(), r); now == "" || !strongMatch(want, now) {
			writeProblem(w, problem.New(http.StatusPreconditionFailed, codePreconditionFail, "it is not, or no more, what If-Match names").
				WithField("header.If-Match", "does not match", nil).WithFix(http.MethodGet, r.URL.Path, "read it again").WithInstance(instance(hc.Context())))
			return
		}
	}
	next(hc)
}

// currentTag is the ETag that a GET of the request's path has now; "" when it
// does not succeed.
func (s *Server) currentTag(ctx context.Context, r *http.Request) string {
	get := r.Clone(context.WithValue(ctx, chi.RouteCtxKey, nil))
	get.Method, get.Body, get.URL.RawQuery = http.MethodGet, http.NoBody, ""
	for _, name := range []string{"If-Match", "If-None-Match", "Idempotency-Key"} {
		get.Header.Del(name)
	}
	h := newHeld()
	s.router.ServeHTTP(h, get)
	if h.status != http.StatusOK {
		return ""
	}
	return h.header.Get("ETag")
}

// strongMatch is the comparison of If-Match (RFC 9110 section 13.1.1).
func strongMatch(header, tag string) bool {
	for part := range strings.SplitSeq(header, ",") {
		if part = strings.TrimSpace(part); part == tag || part == "*" {
			return true
		}
	}
	return false
}

// describeHeaders puts into the document what once and conditional do, and
// finds the tagged resources.
func (s *Server) describeHeaders() {
	text := func(limit int) *huma.Schema { return &huma.Schema{Type: huma.TypeString, MaxLength: &limit} }
	for path, item := range s.api.OpenAPI().Paths {
		writes := []*huma.Operation{}
		for _, op := range []*huma.Operation{item.Post, item.Put, item.Patch, item.Delete} {
			if op != nil {
				writes = append(writes, op)
			}
		}
		if item.Get != nil && (item.Put != nil || item.Patch != nil || item.Delete != nil) {
			s.tagged.paths[path] = true
			item.Get.Parameters = append(item.Get.Parameters, &huma.Param{Name: "If-None-Match", In: "header", Schema: &huma.Schema{Type: huma.TypeString}, Description: "answers 304 when the resource still has this ETag"})
			item.Get.Responses["304"] = &huma.Response{Description: "The resource still has the ETag of If-None-Match"}
			ok := item.Get.Responses["200"]
			if ok.Headers == nil {
				ok.Headers = map[string]*huma.Param{}
			}
			ok.Headers["ETag"] = &huma.Param{Schema: text(64), Description: "changes with the resource; for If-Match"}
		}
		for _, op := range writes {
			if s.tagged.paths[path] && op.Method != http.MethodPost {
				op.Parameters = append(op.Parameters, &huma.Param{Name: "If-Match", In: "header", Schema: &huma.Schema{Type: huma.TypeString}, Description: "does it only while the resource has one of these ETags"})
				failure(op, http.StatusPreconditionFailed)
			}
			if s.deps.Requests != nil && takesKey(op) {
				op.Parameters = append(op.Parameters, &huma.Param{Name: "Idempotency-Key", In: "header", Schema: text(255),
					Description: "made up by the client; the same request with the same key within a day runs once and is answered alike"})
				failure(op, http.StatusConflict)
				failure(op, http.StatusUnprocessableEntity)
			}
		}
	}
}

// failure documents one more status that a route may fail with.
func failure(op *huma.Operation, status int) {
	code := strconv.Itoa(status)
	if op.Responses[code] != nil {
		return
	}
	for _, like := range []string{"401", "500", "422"} {
		if r := op.Responses[like]; r != nil {
			op.Responses[code] = &huma.Response{Description: http.StatusText(status), Content: r.Content}
			return
		}
	}
}
