package guest

import (
	"bufio"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"time"
)

// maxAnswer bounds one answer of the host.
const maxAnswer = 64 << 20

// RPCError is an error that the host answered with: a JSON-RPC code or a
// StartOS error kind (1 to 80).
type RPCError struct {
	Method  string
	Code    int
	Message string
	Details string
}

func (e *RPCError) Error() string {
	s := e.Message
	if e.Details != "" {
		s += ": " + e.Details
	}
	return s
}

// client calls effects over the host's socket, a connection for each call.
type client struct {
	socket string
	// patience is how long a call waits for a host that is away: it may be
	// restarting.
	patience time.Duration
}

func (c *call) client() *client { return &client{socket: c.socket, patience: 2 * time.Minute} }

// Call makes one call and returns its result. While nobody listens on the
// socket, or when a connection ends before the answer, it tries again; the call
// id lets the host run it once.
func (cl *client) Call(method string, params any) (json.RawMessage, error) {
	encoded, err := json.Marshal(params)
	if err != nil {
		return nil, fmt.Errorf("guest: %s: %w", method, err)
	}
	request := request{Method: method, Params: encoded, CallID: strings.ToLower(rand.Text())}
	deadline := time.Now().Add(cl.patience)
	for pause := 10 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		result, again, err := cl.try(&request)
		if err == nil || !again || time.Now().Add(pause).After(deadline) {
			return result, err
		}
		<-time.After(pause)
	}
}

// request is an effect on the wire. Repeat says that a host may have seen it.
type request struct {
	ID     int             `json:"id"`
	Method string          `json:"method"`
	Params json.RawMessage `json:"params"`
	CallID string          `json:"callId"`
	Repeat bool            `json:"repeat,omitempty"`
}

// try makes one attempt; again says that another one may be made.
func (cl *client) try(r *request) (result json.RawMessage, again bool, err error) {
	fail := func(err error) error { return fmt.Errorf("guest: %s over %s: %w", r.Method, cl.socket, err) }
	text, err := json.Marshal(r)
	if err != nil {
		return nil, false, fail(err)
	}
	conn, err := net.Dial("unix", cl.socket)
	if err != nil {
		away := errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.EAGAIN)
		return nil, away, fail(err)
	}
	defer conn.Close()
	r.Repeat = true // from now on
	if _, err := conn.Write(append(text, '\n')); err != nil {
		return nil, true, fail(err)
	}
	line, err := bufio.NewReader(io.LimitReader(conn, maxAnswer)).ReadBytes('\n')
	if err != nil && (len(line) == 0 || !json.Valid(line)) {
		return nil, true, fail(err)
	}
	var answer struct {
		Result json.RawMessage `json:"result"`
		Error  *struct {
			Code    int             `json:"code"`
			Message string          `json:"message"`
			Data    json.RawMessage `json:"data"`
		} `json:"error"`
	}
	if err := json.Unmarshal(line, &answer); err != nil {
		return nil, false, fail(err)
	}
	if e := answer.Error; e != nil {
		return nil, false, &RPCError{Method: r.Method, Code: e.Code, Message: e.Message, Details: errorDetails(e.Data)}
	}
	return answer.Result, false, nil
}

// errorDetails reads an error's data: {details, ...}, a plain string or null.
func errorDetails(data json.RawMessage) string {
	var text string
	if json.Unmarshal(data, &text) == nil {
		return text
	}
	var object struct {
		Details string `json:"details"`
	}
	_ = json.Unmarshal(data, &object)
	return object.Details
}
