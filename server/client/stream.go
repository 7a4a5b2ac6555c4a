package client

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/selfstead/selfstead/server/api"
	"github.com/selfstead/selfstead/server/journal"
	"github.com/selfstead/selfstead/server/operation"
	"github.com/selfstead/selfstead/server/problem"
)

// The waits before a broken stream is opened again.
const (
	firstWait = 200 * time.Millisecond
	lastWait  = 5 * time.Second
)

// maxEvent bounds one event; the largest is a dump of the state.
const maxEvent = 64 << 20

// event is one server-sent event.
type event struct {
	name, id string
	data     []byte
}

// errEnd is returned by a handler that has heard enough.
var errEnd = errors.New("client: enough")

// follow opens a stream and gives its events to fn until fn or ctx ends it, or
// the server refuses. A stream that breaks is opened again where it was.
func (c *Client) follow(ctx context.Context, path string, fn func(event) error) error {
	last, wait := "", firstWait
	for {
		heard, err := c.followOnce(ctx, path, &last, fn)
		var refused *problem.Problem
		switch {
		case errors.Is(err, errEnd):
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.As(err, &refused) && refused.Status != 503:
			return err
		case err != nil && !broken(err):
			return err
		}
		if heard {
			wait = firstWait
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
		wait = min(2*wait, lastWait)
	}
}

// brokenError is the end of a stream that neither side wanted.
type brokenError struct{ error }

func broken(err error) bool {
	var b brokenError
	return errors.As(err, &b)
}

func (c *Client) followOnce(ctx context.Context, path string, last *string, fn func(event) error) (heard bool, err error) {
	req, err := c.request(ctx, "GET", path, nil)
	if err != nil {
		return false, err
	}
	req.Header.Set("Accept", "text/event-stream")
	if *last != "" {
		req.Header.Set("Last-Event-ID", *last)
	}
	res, err := c.send(req)
	if err != nil {
		var p *problem.Problem
		if errors.As(err, &p) {
			return false, err
		}
		return false, brokenError{err}
	}
	defer res.Body.Close()
	r := bufio.NewReader(res.Body)
	for {
		ev, err := readEvent(r)
		if err != nil {
			return heard, err
		}
		heard = true
		if ev.name == "problem" {
			p := &problem.Problem{}
			if err := json.Unmarshal(ev.data, p); err != nil {
				return heard, fmt.Errorf("client: event: %w", err)
			}
			return heard, p
		}
		if err := fn(ev); err != nil {
			return heard, err
		}
		if ev.id != "" {
			*last = ev.id
		}
	}
}

// readEvent reads up to the blank line that ends an event, passing over
// comments and empty events.
func readEvent(r *bufio.Reader) (event, error) {
	var ev event
	size := 0
	for {
		line, err := r.ReadBytes('\n')
		if err != nil {
			return ev, brokenError{fmt.Errorf("client: stream: %w", noEOF(err))}
		}
		if size += len(line); size > maxEvent {
			return ev, errors.New("client: an event is too large")
		}
		text := strings.TrimRight(string(line), "\r\n")
		if text == "" {
			if ev.name != "" || ev.data != nil {
				return ev, nil
			}
			continue
		}
		field, value, _ := strings.Cut(text, ":")
		value = strings.TrimPrefix(value, " ")
		switch field {
		case "event":
			ev.name = value
		case "id":
			ev.id = value
		case "data":
			if ev.data != nil {
				ev.data = append(ev.data, '\n')
			}
			ev.data = append(ev.data, value...)
		}
	}
}

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

func as[T any](ev event) (T, error) {
	var v T
	if err := json.Unmarshal(ev.data, &v); err != nil {
		return v, fmt.Errorf("client: event %s: %w", ev.name, err)
	}
	return v, nil
}

// FollowOperation gives fn the operation at each change and returns it as it
// ended.
func (c *Client) FollowOperation(ctx context.Context, id string, fn func(operation.Operation)) (operation.Operation, error) {
	var op operation.Operation
	err := c.follow(ctx, "/v1/operations/"+url.PathEscape(id)+"/events", func(ev event) (err error) {
		if op, err = as[operation.Operation](ev); err != nil {
			return err
		}
		if fn != nil {
			fn(op)
		}
		if ev.name == "done" {
			return errEnd
		}
		return nil
	})
	return op, err
}

// FollowState gives dump the state and patch each change of it, in order.
// Either returns an error to end it, which FollowState returns.
func (c *Client) FollowState(ctx context.Context, pointer string, since uint64, dump func(api.Dump) error, patch func(api.Revision) error) error {
	q := url.Values{"pointer": {pointer}}
	if since > 0 {
		q.Set("since", strconv.FormatUint(since, 10))
	}
	return c.follow(ctx, "/v1/state/events?"+q.Encode(), func(ev event) error {
		if ev.name == "dump" {
			d, err := as[api.Dump](ev)
			if err != nil {
				return err
			}
			return dump(d)
		}
		r, err := as[api.Revision](ev)
		if err != nil {
			return err
		}
		return patch(r)
	})
}

// FollowLog gives fn the last entries of a package's log, and then each as it
// is written.
func (c *Client) FollowLog(ctx context.Context, id, cursor string, limit int, fn func(journal.Entry) error) error {
	q := url.Values{"limit": {strconv.Itoa(limit)}}
	if cursor != "" {
		q.Set("cursor", cursor)
	}
	return c.follow(ctx, pkg(id, "/logs/events?"+q.Encode()), func(ev event) error {
		e, err := as[journal.Entry](ev)
		if err != nil {
			return err
		}
		return fn(e)
	})
}
