package server

import (
	"net"
	"net/http"
	"sync"
)

// silentConns are the connections that have not said anything yet. Clients open
// some in advance, and a shutdown would wait seconds for each.
type silentConns struct {
	mu     sync.Mutex
	conns  map[net.Conn]struct{}
	closed bool
}

// note follows the states of connections.
func (c *silentConns) note(conn net.Conn, st http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if st != http.StateNew {
		delete(c.conns, conn)
		return
	}
	if c.closed {
		conn.Close()
		return
	}
	if c.conns == nil {
		c.conns = map[net.Conn]struct{}{}
	}
	c.conns[conn] = struct{}{}
}

// close closes them, and those that may still come.
func (c *silentConns) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	for conn := range c.conns {
		conn.Close()
	}
}
