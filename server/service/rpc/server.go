package rpc

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

// Call is one request that a container made.
type Call struct {
	Method string
	Params json.RawMessage // "null" when the request had none
	ID     string          // the caller's name of the call, the same when it asks again; "" when it gave none
}

// Handler answers calls; it runs on many goroutines at once. Its context ends
// when the server is closed.
type Handler func(ctx context.Context, call Call) (any, error)

// ServerOptions tunes Serve. The zero value suits production.
type ServerOptions struct {
	MaxLine  int           // longest request; 0 means DefaultMaxLine
	MaxConns int           // connections served at once, more wait unaccepted; 0 means 256
	MaxLarge int           // requests above 64 KiB held at once; 0 means 4
	Idle     time.Duration // how long a connection may stay silent; 0 means 2 minutes
	Logger   *slog.Logger  // nil means silent
}

// Server serves one container's host.sock until Close.
type Server struct {
	l       net.Listener
	handler Handler
	o       ServerOptions
	ctx     context.Context
	cancel  context.CancelFunc
	slots   chan struct{} // one for each connection
	large   chan struct{} // one for each large request
	seen    *dedupe
	wg      sync.WaitGroup
	closing atomic.Bool // no further requests are read

	mu    sync.Mutex
	conns map[net.Conn]struct{}
}

// smallLine is the request size that needs no permit.
const smallLine = 64 << 10

// Serve answers connections of l with handler, in the background.
func Serve(l net.Listener, handler Handler, o ServerOptions) *Server {
	if o.MaxLine == 0 {
		o.MaxLine = DefaultMaxLine
	}
	if o.MaxConns == 0 {
		o.MaxConns = 256
	}
	if o.MaxLarge == 0 {
		o.MaxLarge = 4
	}
	if o.Idle == 0 {
		o.Idle = 2 * time.Minute
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Server{
		l: l, handler: handler, o: o,
		slots: make(chan struct{}, o.MaxConns), large: make(chan struct{}, o.MaxLarge),
		seen: newDedupe(), conns: map[net.Conn]struct{}{},
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.wg.Add(1)
	go s.accept()
	return s
}

// Close stops listening, ends the contexts of calls under way, and waits for
// them. A call that fails for that reason is not answered: its connection is
// cut, so that the caller asks the next server. Close may be called twice.
func (s *Server) Close() error {
	s.cancel()
	err := s.quiet()
	s.wg.Wait()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// Shutdown is Close that lets calls under way end until ctx does.
func (s *Server) Shutdown(ctx context.Context) error {
	s.closing.Store(true)
	s.quiet()
	done := make(chan struct{})
	go func() { s.wg.Wait(); close(done) }()
	select {
	case <-done:
	case <-ctx.Done():
	}
	return s.Close()
}

// quiet stops listening and ends the waiting for further requests.
func (s *Server) quiet() error {
	err := s.l.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	for conn := range s.conns {
		conn.SetReadDeadline(time.Unix(1, 0))
		conn.SetWriteDeadline(time.Now().Add(time.Second)) // answers under way may still leave
	}
	return err
}

func (s *Server) accept() {
	defer s.wg.Done()
	for {
		select {
		case s.slots <- struct{}{}:
		case <-s.ctx.Done():
			return
		}
		conn, err := s.l.Accept()
		if err != nil {
			<-s.slots
			if s.ctx.Err() != nil || s.closing.Load() || errors.Is(err, net.ErrClosed) {
				return
			}
			s.o.Logger.Warn("effect socket does not accept", "err", err)
			select {
			case <-time.After(100 * time.Millisecond):
			case <-s.ctx.Done():
				return
			}
			continue
		}
		s.mu.Lock()
		s.conns[conn] = struct{}{}
		s.mu.Unlock()
		s.wg.Add(1) // accept itself holds one, so Wait cannot have returned
		go func() {
			defer s.wg.Done()
			s.serve(conn)
			conn.Close()
			s.mu.Lock()
			delete(s.conns, conn)
			s.mu.Unlock()
			<-s.slots
		}()
	}
}

// serve answers the lines of one connection in order. The end of the
// caller's sending side does not end the answering: callers half-close.
func (s *Server) serve(conn net.Conn) {
	r := bufio.NewReaderSize(conn, 4096)
	for s.ctx.Err() == nil {
		conn.SetReadDeadline(time.Now().Add(s.o.Idle))
		if s.ctx.Err() != nil || s.closing.Load() { // their deadline may have come just before ours
			return
		}
		if !s.serveLine(conn, r) {
			return
		}
	}
}

func (s *Server) serveLine(conn net.Conn, r *bufio.Reader) (more bool) {
	held := false
	defer func() {
		if held {
			<-s.large
		}
	}()
	line, err := readLine(r, s.o.MaxLine, func() error {
		select {
		case s.large <- struct{}{}:
			held = true
			return nil
		case <-s.ctx.Done():
			return ErrClosed
		}
	})
	switch {
	case errors.Is(err, ErrTooLong):
		s.write(conn, encode(nil, nil, NewError(CodeInvalidRequest, "Invalid Request", ErrTooLong.Error())))
		return false
	case err != nil:
		return false
	case len(bytes.TrimSpace(line)) == 0:
		return true
	}
	answer := s.answer(line)
	return answer != nil && s.write(conn, answer)
}

func (s *Server) write(conn net.Conn, answer []byte) bool {
	if s.ctx.Err() == nil && !s.closing.Load() {
		conn.SetWriteDeadline(time.Now().Add(s.o.Idle))
	}
	_, err := conn.Write(append(answer, '\n'))
	return err == nil
}

type incoming struct {
	ID     json.RawMessage `json:"id"`
	Method *string         `json:"method"`
	Params json.RawMessage `json:"params"`
	CallID string          `json:"callId"`
}

// maxBatch is how many requests a batch may have. Every answer is longer than
// the shortest request, so a batch that only a line's length bounds could ask
// for a hundred times its size.
const maxBatch = 64

// answer runs one line: a request or a batch of them.
func (s *Server) answer(line []byte) []byte {
	line = bytes.TrimSpace(line)
	if line[0] != '[' {
		return s.answerOne(line)
	}
	batch, err := readBatch(line)
	if err != nil {
		return encode(nil, nil, err)
	}
	if len(batch) == 0 {
		return encode(nil, nil, NewError(CodeInvalidRequest, "Invalid Request", "a batch without requests"))
	}
	out := []byte{'['}
	for i, one := range batch {
		if i > 0 {
			out = append(out, ',')
		}
		if len(out) > s.o.MaxLine {
			out = append(out, encode(nil, nil, NewError(CodeInvalidRequest, "Invalid Request", "the batch has more answers than fit"))...)
			continue
		}
		answer := s.answerOne(one)
		if answer == nil {
			return nil
		}
		out = append(out, answer...)
	}
	return append(out, ']')
}

// readBatch takes a batch apart, no further than its limit.
func readBatch(line []byte) ([]json.RawMessage, error) {
	if !json.Valid(line) {
		return nil, NewError(CodeParse, "Parse error", "the batch is not JSON")
	}
	var batch []json.RawMessage
	d := json.NewDecoder(bytes.NewReader(line))
	d.Token() //nolint:errcheck // the bracket
	for d.More() {
		if len(batch) == maxBatch {
			return nil, NewError(CodeInvalidRequest, "Invalid Request", fmt.Sprintf("a batch has at most %d requests", maxBatch))
		}
		var one json.RawMessage
		if err := d.Decode(&one); err != nil {
			return nil, NewError(CodeParse, "Parse error", err.Error())
		}
		batch = append(batch, one)
	}
	return batch, nil
}

func (s *Server) answerOne(text []byte) []byte {
	var in incoming
	if err := json.Unmarshal(text, &in); err != nil {
		if !json.Valid(text) {
			return encode(nil, nil, NewError(CodeParse, "Parse error", err.Error()))
		}
		return encode(nil, nil, NewError(CodeInvalidRequest, "Invalid Request", err.Error()))
	}
	if len(in.ID) > 0 && (in.ID[0] == '{' || in.ID[0] == '[' || in.ID[0] == 't' || in.ID[0] == 'f') {
		return encode(nil, nil, NewError(CodeInvalidRequest, "Invalid Request", "the id is neither text, number nor null"))
	}
	if in.Method == nil {
		return encode(in.ID, nil, NewError(CodeInvalidRequest, "Invalid Request", "the request names no method"))
	}
	if len(in.Params) == 0 {
		in.Params = json.RawMessage("null")
	}
	o := s.seen.do(in.CallID, func() outcome {
		value, err := s.run(Call{Method: *in.Method, Params: in.Params, ID: in.CallID})
		if err != nil {
			return outcome{err: err}
		}
		result, err := json.Marshal(value)
		return outcome{result, err}
	})
	if o.err != nil && s.ctx.Err() != nil {
		return nil
	}
	return encode(in.ID, o.result, o.err)
}

func (s *Server) run(call Call) (result any, err error) {
	s.o.Logger.Debug("effect", "method", call.Method)
	defer func() {
		if p := recover(); p != nil {
			s.o.Logger.Error("effect panicked", "method", call.Method, "err", p, "stack", string(debug.Stack()))
			result, err = nil, NewError(CodeInternal, "Internal error", "the server failed while it answered "+call.Method)
		}
	}()
	return s.handler(s.ctx, call)
}

// encode makes the answer's text. The result member is always there on
// success, null for calls that return nothing.
func encode(id, result json.RawMessage, err error) []byte {
	if len(id) == 0 {
		id = json.RawMessage("null")
	}
	if err == nil {
		text, _ := json.Marshal(struct {
			Version string          `json:"jsonrpc"`
			Result  json.RawMessage `json:"result"`
			ID      json.RawMessage `json:"id"`
		}{"2.0", result, id})
		return text
	}
	var e *Error
	if !errors.As(err, &e) {
		e = NewError(1, "Unknown Error", err.Error())
	}
	text, _ := json.Marshal(struct {
		Version string          `json:"jsonrpc"`
		Error   *Error          `json:"error"`
		ID      json.RawMessage `json:"id"`
	}{"2.0", e, id})
	return text
}
