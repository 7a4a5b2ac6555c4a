package stream

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/coder/websocket"

	"github.com/selfstead/selfstead/patchdb"
)

// serveEvents answers with Server-Sent Events.
func (h *handler) serveEvents(w http.ResponseWriter, r *http.Request, f *feed) {
	rc := http.NewResponseController(w)
	header := w.Header()
	header.Set("Content-Type", "text/event-stream")
	header.Set("Cache-Control", "no-store")
	header.Set("X-Accel-Buffering", "no") // proxies that buffer would hold events back
	w.WriteHeader(http.StatusOK)
	if err := rc.Flush(); err != nil {
		return
	}
	for {
		m, err := f.next(r.Context())
		if err != nil {
			return
		}
		// A server that cannot set deadlines relies on its own.
		if err := rc.SetWriteDeadline(time.Now().Add(h.o.WriteTimeout)); err != nil && !errors.Is(err, http.ErrNotSupported) {
			return
		}
		// JSON text has no line breaks of its own, so one data line holds it.
		if _, err := fmt.Fprintf(w, "event: %s\nid: %d\ndata: %s\n\n", m.kind, m.id, m.body); err != nil {
			return
		}
		if err := rc.Flush(); err != nil {
			return
		}
	}
}

// serveWebSocket answers with a WebSocket, on which the client says nothing.
func (h *handler) serveWebSocket(w http.ResponseWriter, r *http.Request, f *feed) {
	c, err := websocket.Accept(w, r, &websocket.AcceptOptions{OriginPatterns: h.o.Origins})
	if err != nil {
		return // Accept has answered
	}
	defer c.CloseNow()
	ctx := c.CloseRead(r.Context())
	for {
		m, err := f.next(ctx)
		if err != nil {
			if errors.Is(err, patchdb.ErrClosed) {
				c.Close(websocket.StatusGoingAway, "the database is closed")
			}
			return
		}
		frame := fmt.Appendf(nil, "{%q:%s}", m.kind, m.body)
		if err := h.write(ctx, c, frame); err != nil {
			return
		}
	}
}

func (h *handler) write(ctx context.Context, c *websocket.Conn, frame []byte) error {
	ctx, cancel := context.WithTimeout(ctx, h.o.WriteTimeout)
	defer cancel()
	return c.Write(ctx, websocket.MessageText, frame)
}
