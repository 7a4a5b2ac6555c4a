package server

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/selfstead/selfstead/server/journal"
)

type (
	logInput struct {
		ID     string `path:"id" maxLength:"200" doc:"id of the package" example:"hello-world"`
		Limit  int    `query:"limit" minimum:"1" maximum:"1000" default:"50" doc:"most entries to return"`
		Cursor string `query:"cursor" pattern:"^[0-7]?[0-9a-f]{1,15}\\.[0-7]?[0-9a-f]{1,15}$" patternDescription:"cursor of an entry" doc:"return what follows this place; without it, the newest entries"`
		Before bool   `query:"before" doc:"with cursor: return what precedes it"`
	}
	logEventsInput struct {
		ID          string `path:"id" maxLength:"200" doc:"id of the package" example:"hello-world"`
		Limit       int    `query:"limit" minimum:"0" maximum:"1000" default:"50" doc:"entries of the past to begin with; not with a cursor"`
		Cursor      string `query:"cursor" pattern:"^[0-7]?[0-9a-f]{1,15}\\.[0-7]?[0-9a-f]{1,15}$" patternDescription:"cursor of an entry" doc:"begin with what follows this place"`
		LastEventID string `header:"Last-Event-ID" doc:"as cursor, and goes before it"`
	}
)

func (s *Server) logRoutes() {
	add(s, huma.Operation{
		OperationID: "read-log", Method: http.MethodGet, Path: "/v1/packages/{id}/logs", Tags: []string{tagLogs},
		Errors: []int{http.StatusNotFound}, Summary: "Read a package's log",
		Description: "Oldest first. Page on with `endCursor`, back with `startCursor` and `before`.",
	}, func(_ context.Context, in *logInput) (*body[journal.Page], error) {
		log, err := s.deps.Services.Logs(in.ID)
		if err != nil {
			return nil, err
		}
		page, err := log.Read(journal.Query{Limit: in.Limit, Cursor: in.Cursor, Before: in.Before})
		return &body[journal.Page]{page}, err
	})
	addStream(s, huma.Operation{
		OperationID: "follow-log", Path: "/v1/packages/{id}/logs/events", Tags: []string{tagLogs},
		Errors: []int{http.StatusNotFound}, Summary: "Follow a package's log",
		Description: "The newest entries first, then each as it is written. The id of an event is its cursor.",
	}, []event{{"log", "one entry", journal.Entry{}}}, s.followLog)
}

func (s *Server) followLog(_ context.Context, in *logEventsInput) (runFunc, error) {
	log, err := s.deps.Services.Logs(in.ID)
	if err != nil {
		return nil, err
	}
	cursor := resume(in.LastEventID, in.Cursor)
	if cursor != "" { // refuse a bad one before the stream begins
		if _, err := log.Read(journal.Query{Limit: 1, Cursor: cursor}); err != nil {
			return nil, err
		}
	}
	return func(ctx context.Context, st *stream) error {
		return log.Follow(ctx, cursor, in.Limit, func(e journal.Entry) error { return st.send("log", e.Cursor, e) })
	}, nil
}
