package stream

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/selfstead/selfstead/patchdb"
)

// Options tunes Handler. The zero value suits most.
type Options struct {
	// Heartbeat is the longest silence; 0 means 15 s.
	Heartbeat time.Duration
	// WriteTimeout is how long a client may take nothing; 0 means 30 s.
	WriteTimeout time.Duration
	// Buffer is as in patchdb.SubscribeOptions.
	Buffer int
	// Allow says whether the request may watch the pointer; nil means it may.
	// The answer to one that may not is 403.
	Allow func(r *http.Request, p patchdb.Pointer) bool
	// Origins are host patterns from which browsers may open WebSockets, beside
	// the request's own host.
	Origins []string
}

// Handler serves subscriptions of db. It ends them when the request's context
// ends or the database is closed.
func Handler(db *patchdb.DB, o Options) http.Handler {
	if o.Heartbeat <= 0 {
		o.Heartbeat = 15 * time.Second
	}
	if o.WriteTimeout <= 0 {
		o.WriteTimeout = 30 * time.Second
	}
	return &handler{db, o}
}

type handler struct {
	db *patchdb.DB
	o  Options
}

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet {
		w.Header().Set("Allow", http.MethodGet)
		http.Error(w, "only GET streams", http.StatusMethodNotAllowed)
		return
	}
	p := patchdb.Pointer(r.URL.Query().Get("pointer"))
	if _, err := p.Tokens(); err != nil {
		http.Error(w, "pointer is not a JSON Pointer", http.StatusBadRequest)
		return
	}
	since, err := sinceOf(r)
	if err != nil {
		http.Error(w, "since is not a revision", http.StatusBadRequest)
		return
	}
	if h.o.Allow != nil && !h.o.Allow(r, p) {
		http.Error(w, "not allowed to watch this", http.StatusForbidden)
		return
	}
	sub, err := h.db.Subscribe(p, patchdb.SubscribeOptions{Since: since, Buffer: h.o.Buffer})
	if err != nil {
		http.Error(w, "the database is closed", http.StatusServiceUnavailable)
		return
	}
	defer sub.Close()
	f := feed{sub: sub, heartbeat: h.o.Heartbeat}
	if since != nil {
		f.at = *since
	}
	if strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
		h.serveWebSocket(w, r, &f)
	} else {
		h.serveEvents(w, r, &f)
	}
}

// sinceOf is the revision to resume from: what a browser's EventSource says of
// its own accord comes before the query that the page gave it at first.
func sinceOf(r *http.Request) (*patchdb.RevisionID, error) {
	text := r.Header.Get("Last-Event-ID")
	if text == "" {
		text = r.URL.Query().Get("since")
	}
	if text == "" {
		return nil, nil
	}
	n, err := strconv.ParseUint(text, 10, 64)
	id := patchdb.RevisionID(n)
	return &id, err
}

// message is one of what doc.go lists.
type message struct {
	kind string
	id   patchdb.RevisionID
	body json.RawMessage
}

// feed turns events into messages.
type feed struct {
	sub       *patchdb.Subscription
	heartbeat time.Duration
	at        patchdb.RevisionID // what the client knows
}

var errSilence = errors.New("nothing to tell")

// next waits for the next message, a heartbeat at the latest.
func (f *feed) next(ctx context.Context) (message, error) {
	for {
		wait, cancel := context.WithTimeoutCause(ctx, f.heartbeat, errSilence)
		ev, err := f.sub.Next(wait)
		cancel()
		switch {
		case err == errSilence:
			if id, ok := f.sub.Position(); ok {
				f.at = id
				return encode("heartbeat", id, map[string]any{"id": id})
			}
		case err != nil:
			return message{}, err
		case ev.Dump != nil:
			f.at = ev.Dump.ID
			return encode("dump", f.at, ev.Dump)
		default:
			after := f.at
			f.at = ev.Revision.ID
			return encode("revision", f.at, revision{ev.Revision.ID, after, ev.Revision.Patch})
		}
	}
}

type revision struct {
	ID    patchdb.RevisionID `json:"id"`
	After patchdb.RevisionID `json:"after"`
	Patch patchdb.Patch      `json:"patch"`
}

func encode(kind string, id patchdb.RevisionID, v any) (message, error) {
	b, err := json.Marshal(v)
	return message{kind, id, b}, err
}
