package server

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"reflect"
	"strings"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"

	"github.com/selfstead/selfstead/server/problem"
)

const (
	maxStreams   = 4096             // open at once, everyone's together
	writeTimeout = 30 * time.Second // for one message to a slow client
	maxEventID   = 256
)

// stream is one open answer of server-sent events (WHATWG HTML, "Server-sent
// events"). Sends wait for the client; between them a comment now and then
// keeps the connection alive and notices a client that is gone.
type stream struct {
	w      http.ResponseWriter
	rc     *http.ResponseController
	cancel context.CancelFunc
	every  time.Duration

	mu    sync.Mutex
	buf   bytes.Buffer
	timer *time.Timer
	ended bool
}

// send writes one event; id is left out when empty.
func (st *stream) send(event, id string, data any) error {
	text, ok := data.([]byte)
	if !ok {
		var err error
		if text, err = json.Marshal(data); err != nil {
			return err
		}
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	st.buf.Reset()
	if id != "" {
		st.buf.WriteString("id: ")
		st.buf.WriteString(id)
		st.buf.WriteByte('\n')
	}
	st.buf.WriteString("event: ")
	st.buf.WriteString(event)
	st.buf.WriteString("\ndata: ")
	st.buf.Write(text) // JSON has no line ends of its own
	st.buf.WriteString("\n\n")
	return st.flushLocked()
}

func (st *stream) flushLocked() error {
	st.rc.SetWriteDeadline(time.Now().Add(writeTimeout)) //nolint:errcheck // test recorders have none
	_, err := st.w.Write(st.buf.Bytes())
	if err == nil {
		err = st.rc.Flush()
	}
	if err != nil {
		st.cancel()
		return err
	}
	if st.buf.Cap() > 64<<10 {
		st.buf = bytes.Buffer{} // a big dump is not kept for the stream's life
	}
	if st.timer != nil {
		st.timer.Reset(st.every)
	}
	return nil
}

// beat is the heartbeat: a comment, which clients pass over.
func (st *stream) beat() {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.ended {
		return
	}
	st.buf.Reset()
	st.buf.WriteString(":\n\n")
	st.flushLocked() //nolint:errcheck // it cancels the stream
}

func (st *stream) end() {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.ended = true
	st.rc.SetWriteDeadline(time.Time{}) //nolint:errcheck // the connection may serve other requests
	if st.timer != nil {
		st.timer.Stop()
	}
}

// event documents one kind of event: its name and the type of its data.
type event struct {
	name string
	doc  string
	data any
}

// runFunc feeds a stream until the context is done or there is no more.
type runFunc func(ctx context.Context, st *stream) error

// addStream registers a route that answers with events. open checks the
// request and may fail with a problem; what it returns then feeds the stream.
func addStream[I any](s *Server, op huma.Operation, events []event, open func(context.Context, *I) (runFunc, error)) {
	op.Method = http.MethodGet
	prepare(&op)
	op.Errors = append(op.Errors, http.StatusServiceUnavailable)
	op.Responses = map[string]*huma.Response{"200": {
		Description: "A stream of server-sent events",
		Content:     map[string]*huma.MediaType{"text/event-stream": {Schema: s.eventSchema(events)}},
	}}
	huma.Register(s.api, op, func(ctx context.Context, in *I) (*huma.StreamResponse, error) {
		run, err := open(ctx, in)
		if err != nil {
			return nil, s.fail(info(ctx), err)
		}
		if s.streams.Add(1) > maxStreams {
			s.streams.Add(-1)
			return nil, s.fail(info(ctx), problem.New(http.StatusServiceUnavailable, codeTooMany, "too many open streams").WithHeader("Retry-After", "5"))
		}
		return &huma.StreamResponse{Body: func(hc huma.Context) {
			defer s.streams.Add(-1)
			s.stream(hc, run)
		}}, nil
	})
}

// stream runs one stream: it ends with the request, the caller's session or
// the server.
func (s *Server) stream(hc huma.Context, run runFunc) {
	_, w := humachi.Unwrap(hc)
	ctx, cancel := context.WithCancel(hc.Context())
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)()
	if session := caller(ctx).session; session != nil {
		defer context.AfterFunc(session.Context(), cancel)()
	}
	st := &stream{w: w, rc: http.NewResponseController(w), cancel: cancel, every: s.opts.Heartbeat}
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("X-Accel-Buffering", "no") // nginx holds streams back otherwise
	w.WriteHeader(http.StatusOK)
	st.mu.Lock()
	st.timer = time.AfterFunc(st.every, st.beat)
	err := st.flushLocked() // the client sees the head before the first event
	st.mu.Unlock()
	defer st.end()
	if err == nil {
		err = run(ctx, st)
	}
	if err != nil && ctx.Err() == nil {
		st.send("problem", "", s.fail(info(ctx), err)) //nolint:errcheck // the stream ends anyway
	}
}

// eventSchema describes the events as an array of one of several objects, as
// is customary for streams in OpenAPI 3.1.
func (s *Server) eventSchema(events []event) *huma.Schema {
	var kinds []*huma.Schema
	for _, e := range events {
		kinds = append(kinds, &huma.Schema{
			Title: "event " + e.name, Type: huma.TypeObject, Description: e.doc,
			Properties: map[string]*huma.Schema{
				"event": {Type: huma.TypeString, Enum: []any{e.name}},
				"id":    {Type: huma.TypeString, Description: "pass the last one on as Last-Event-ID to resume"},
				"data":  s.api.OpenAPI().Components.Schemas.Schema(reflect.TypeOf(e.data), true, e.name),
			},
			Required: []string{"event", "data"},
		})
	}
	return &huma.Schema{Title: "Server-sent events", Type: huma.TypeArray, Items: &huma.Schema{OneOf: kinds}}
}

// resume is where a client wants a stream to go on: the header that browsers
// send by themselves, else the query parameter.
func resume(header, query string) string {
	id := strings.TrimSpace(header)
	if id == "" {
		id = query
	}
	if len(id) > maxEventID {
		return id[:maxEventID]
	}
	return id
}
