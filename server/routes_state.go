package server

import (
	"context"
	"errors"
	"io/fs"
	"net/http"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/selfstead/selfstead/patchdb"
	"github.com/selfstead/selfstead/server/api"
	"github.com/selfstead/selfstead/server/problem"
	"github.com/selfstead/selfstead/server/state"
)

type (
	stateInput struct {
		Pointer     string `query:"pointer" maxLength:"1024" pattern:"^(/([^/~]|~[01])*)*$" patternDescription:"JSON Pointer" doc:"JSON Pointer (RFC 6901) to the part that is wanted; empty for the whole" example:"/serverInfo"`
		IfNoneMatch string `header:"If-None-Match" doc:"answers 304 when the state still has this ETag"`
	}
	stateOutput struct {
		Status int
		ETag   string `header:"ETag" doc:"the revision in quotes"`
		Body   api.Dump
	}
	stateEventsInput struct {
		Pointer     string `query:"pointer" maxLength:"1024" pattern:"^(/([^/~]|~[01])*)*$" patternDescription:"JSON Pointer" doc:"JSON Pointer (RFC 6901) to the part that is wanted; empty for the whole"`
		Since       string `query:"since" pattern:"^([0-9]{1,18})?$" patternDescription:"revision" doc:"revision that the client has; as Last-Event-ID, which goes before it"`
		LastEventID string `header:"Last-Event-ID" doc:"id of the last event that the client has seen"`
	}
)

func (s *Server) stateRoutes() {
	add(s, huma.Operation{
		OperationID: "get-state", Method: http.MethodGet, Path: "/v1/state", Tags: []string{tagState},
		Errors: []int{http.StatusNotFound}, Summary: "Read the state",
		Description: "One consistent snapshot with its revision. Secrets are not part of it.",
		Responses:   map[string]*huma.Response{"304": {Description: "The state still has the ETag of If-None-Match"}},
	}, s.getState)
	addStream(s, huma.Operation{
		OperationID: "follow-state", Path: "/v1/state/events", Tags: []string{tagState},
		Summary: "Follow the state",
		Description: "Begins with `dump`, or with the changes since the revision that the client names, if the server still has them. " +
			"Each `patch` applies to the state before it. Another `dump` starts over; it comes to a client that is too slow. What pointer names need not exist yet: it counts as null.",
	}, []event{
		{"dump", "the whole, or the part that pointer names", api.Dump{}},
		{"patch", "one change", api.Revision{}},
	}, s.followState)
}

// publicPointer is the place of a client's pointer in the document. Clients see
// nothing outside of the public part, and no pointer leads out of it.
func publicPointer(p string) (patchdb.Pointer, error) {
	if p != "" && !strings.HasPrefix(p, "/") {
		return "", problem.New(http.StatusUnprocessableEntity, problem.CodeInvalid, "a JSON Pointer is empty or begins with a slash").
			WithField("query.pointer", "not a JSON Pointer", p)
	}
	return state.Public + patchdb.Pointer(p), nil
}

func stateError(pointer string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return problem.New(http.StatusNotFound, problem.CodeNotFound, "the state has nothing at that pointer").
			WithField("query.pointer", "points at nothing", pointer)
	}
	if errors.Is(err, patchdb.ErrInvalid) {
		return problem.New(http.StatusUnprocessableEntity, problem.CodeInvalid, "that is not a JSON Pointer").
			WithField("query.pointer", "not a JSON Pointer", pointer)
	}
	return err
}

func revisionID(id patchdb.RevisionID) string { return strconv.FormatUint(uint64(id), 10) }

func etag(id patchdb.RevisionID) string { return `"` + revisionID(id) + `"` }

func (s *Server) getState(_ context.Context, in *stateInput) (*stateOutput, error) {
	pointer, err := publicPointer(in.Pointer)
	if err != nil {
		return nil, err
	}
	dump, err := s.deps.DB.Dump(pointer)
	if err != nil {
		return nil, stateError(in.Pointer, err)
	}
	out := &stateOutput{Status: http.StatusOK, ETag: etag(dump.ID), Body: api.Dump{ID: uint64(dump.ID), Value: dump.Value}}
	if matches(in.IfNoneMatch, out.ETag) {
		out.Status = http.StatusNotModified
	}
	return out, nil
}

// matches is the weak comparison of If-None-Match (RFC 9110 section 13.1.2).
func matches(header, tag string) bool {
	for part := range strings.SplitSeq(header, ",") {
		part = strings.TrimPrefix(strings.TrimSpace(part), "W/")
		if part == tag || part == "*" {
			return true
		}
	}
	return false
}

func (s *Server) followState(_ context.Context, in *stateEventsInput) (runFunc, error) {
	pointer, err := publicPointer(in.Pointer)
	if err != nil {
		return nil, err
	}
	var opts patchdb.SubscribeOptions
	if id := resume(in.LastEventID, in.Since); id != "" {
		n, err := strconv.ParseUint(id, 10, 64)
		if err != nil {
			return nil, problem.New(http.StatusUnprocessableEntity, problem.CodeInvalid, "a revision is a number").
				WithField("header.Last-Event-ID", "not a revision", id)
		}
		since := patchdb.RevisionID(n)
		opts.Since = &since
	}
	sub, err := s.deps.DB.Subscribe(pointer, opts)
	if err != nil {
		return nil, stateError(in.Pointer, err)
	}
	return func(ctx context.Context, st *stream) error {
		defer sub.Close()
		for {
			ev, err := sub.Next(ctx)
			if err != nil {
				return err
			}
			switch {
			case ev.Dump != nil: // patchdb's types have the JSON of api.Dump and api.Revision
				err = st.send("dump", revisionID(ev.Dump.ID), ev.Dump)
			case ev.Revision != nil:
				err = st.send("patch", revisionID(ev.Revision.ID), ev.Revision)
			}
			if err != nil {
				return err
			}
		}
	}, nil
}
