package rpc

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"sync"
	"time"
)

// maxIdle is how many connections a client keeps for the next calls.
const maxIdle = 4

// DefaultMaxLine is the longest line either side accepts.
const DefaultMaxLine = 16 << 20

// Client calls a container's runtime. Each connection carries one request at
// a time, because runtimes answer some faults with the last id they saw; more
// calls at once take more connections. A Client may be shared.
type Client struct {
	dial    func(ctx context.Context) (net.Conn, error)
	maxLine int

	mu     sync.Mutex
	idle   []*clientConn
	live   map[*clientConn]struct{}
	nextID int64
	closed bool
}

type clientConn struct {
	net.Conn
	r *bufio.Reader
}

// NewClient is a client whose connections come from dial.
func NewClient(dial func(ctx context.Context) (net.Conn, error)) *Client {
	return &Client{dial: dial, maxLine: DefaultMaxLine, live: map[*clientConn]struct{}{}}
}

type request struct {
	ID     *int64 `json:"id,omitempty"`
	Method string `json:"method"`
	Params any    `json:"params"`
}

type response struct {
	ID     json.RawMessage `json:"id"`
	Result json.RawMessage `json:"result"`
	Error  *Error          `json:"error"`
}

// Call sends a request and waits for its answer, which is stored in result
// unless that is nil. When ctx ends first the connection is dropped and the
// runtime goes on with what it does. The answer's error is an [*Error].
func (c *Client) Call(ctx context.Context, method string, params, result any) error {
	conn, err := c.take(ctx)
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.nextID++
	id := c.nextID
	c.mu.Unlock()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	answer, err := c.exchange(conn, request{ID: &id, Method: method, Params: params})
	if !stop() || err != nil {
		c.drop(conn)
		if ctx.Err() != nil {
			return fmt.Errorf("rpc: %s: %w", method, context.Cause(ctx))
		}
		if err != nil {
			return fmt.Errorf("rpc: %s: %w", method, err)
		}
	} else {
		c.put(conn)
	}
	if answer.Error != nil {
		return answer.Error
	}
	if result == nil || len(answer.Result) == 0 {
		return nil
	}
	if err := json.Unmarshal(answer.Result, result); err != nil {
		return fmt.Errorf("rpc: %s: answer: %w", method, err)
	}
	return nil
}

// Notify sends a request that is never answered.
func (c *Client) Notify(ctx context.Context, method string, params any) error {
	conn, err := c.take(ctx)
	if err != nil {
		return err
	}
	if deadline, ok := ctx.Deadline(); ok {
		conn.SetWriteDeadline(deadline)
		defer conn.SetWriteDeadline(time.Time{})
	}
	if err := send(conn, request{Method: method, Params: params}); err != nil {
		c.drop(conn)
		return fmt.Errorf("rpc: %s: %w", method, err)
	}
	c.put(conn)
	return nil
}

// Close drops every connection; calls under way end with an error.
func (c *Client) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	for conn := range c.live {
		conn.Close()
	}
	clear(c.live)
	c.idle = nil
	return nil
}

// Add gives the client a connection that is already open.
func (c *Client) Add(conn net.Conn) {
	cc := &clientConn{Conn: conn, r: bufio.NewReader(conn)}
	c.mu.Lock()
	c.live[cc] = struct{}{}
	c.mu.Unlock()
	c.put(cc)
}

func (c *Client) exchange(conn *clientConn, req request) (response, error) {
	if err := send(conn, req); err != nil {
		return response{}, err
	}
	want := fmt.Sprint(*req.ID)
	for {
		line, err := readLine(conn.r, c.maxLine, nil)
		if err != nil {
			return response{}, err
		}
		if len(line) == 0 {
			continue
		}
		var answer response
		if err := json.Unmarshal(line, &answer); err != nil {
			return response{}, fmt.Errorf("answer is not JSON-RPC: %w", err)
		}
		if string(answer.ID) == want {
			return answer, nil
		}
	}
}

func send(conn net.Conn, req request) error {
	text, err := json.Marshal(req)
	if err != nil {
		return err
	}
	_, err = conn.Write(append(escape(text), '\n'))
	return err
}

func (c *Client) take(ctx context.Context) (*clientConn, error) {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil, ErrClosed
	}
	if n := len(c.idle); n > 0 {
		conn := c.idle[n-1]
		c.idle = c.idle[:n-1]
		c.mu.Unlock()
		return conn, nil
	}
	c.mu.Unlock()
	conn, err := c.dial(ctx)
	if err != nil {
		return nil, err
	}
	cc := &clientConn{Conn: conn, r: bufio.NewReader(conn)}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		conn.Close()
		return nil, ErrClosed
	}
	c.live[cc] = struct{}{}
	return cc, nil
}

func (c *Client) put(conn *clientConn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || len(c.idle) >= maxIdle {
		delete(c.live, conn)
		conn.Close()
		return
	}
	c.idle = append(c.idle, conn)
}

func (c *Client) drop(conn *clientConn) {
	c.mu.Lock()
	delete(c.live, conn)
	c.mu.Unlock()
	conn.Close()
}
