package server

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/selfstead/selfstead/server/operation"
)

// progressEvery is the shortest time between two progress events.
const progressEvery = 50 * time.Millisecond

type operationInput struct {
	ID string `path:"id" maxLength:"64" doc:"name of the operation"`
}

// started is the answer to a call that began long work.
type started struct {
	Location string `header:"Location" doc:"path of the operation"`
	Body     operation.Operation
}

func startedOperation(op operation.Operation) *started {
	return &started{Location: "/v1/operations/" + op.ID, Body: op}
}

func (s *Server) operationRoutes() {
	add(s, huma.Operation{
		OperationID: "list-operations", Method: http.MethodGet, Path: "/v1/operations", Tags: []string{tagOperations},
		Summary: "List operations", Description: "What runs, and what ended within the last hour; the newest first.",
	}, func(ctx context.Context, in *pageInput) (*list[operation.Operation], error) {
		return paged(ctx, *in, s.deps.Operations.List(), true, func(op operation.Operation) string { return timeKey(op.Created, op.ID) })
	})
	add(s, huma.Operation{
		OperationID: "get-operation", Method: http.MethodGet, Path: "/v1/operations/{id}", Tags: []string{tagOperations},
		Errors: []int{http.StatusNotFound}, Summary: "Read an operation",
	}, func(_ context.Context, in *operationInput) (*body[operation.Operation], error) {
		op, err := s.deps.Operations.Get(in.ID)
		return &body[operation.Operation]{op}, err
	})
	add(s, huma.Operation{
		OperationID: "cancel-operation", Method: http.MethodDelete, Path: "/v1/operations/{id}", Tags: []string{tagOperations},
		DefaultStatus: http.StatusAccepted, Errors: []int{http.StatusNotFound, http.StatusConflict},
		Summary: "Cancel an operation", Description: "Asks it to end and undo what it did; it has ended once its status says so.",
	}, func(_ context.Context, in *operationInput) (*body[operation.Operation], error) {
		op, err := s.deps.Operations.Cancel(in.ID)
		return &body[operation.Operation]{op}, err
	})
	addStream(s, huma.Operation{
		OperationID: "follow-operation", Path: "/v1/operations/{id}/events", Tags: []string{tagOperations},
		Errors: []int{http.StatusNotFound}, Summary: "Follow an operation",
		Description: "`progress` comes at once and with each change, `done` is the last event.",
	}, []event{
		{"progress", "the operation while it runs", operation.Operation{}},
		{"done", "the operation as it ended", operation.Operation{}},
	}, s.followOperation)
}

func (s *Server) followOperation(_ context.Context, in *operationInput) (runFunc, error) {
	sub, err := s.deps.Operations.Subscribe(in.ID)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, st *stream) error {
		pause := time.NewTimer(0)
		defer pause.Stop()
		for {
			op, err := sub.Next(ctx)
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return err
			}
			name := "progress"
			if op.Done() {
				name = "done"
			}
			if err := st.send(name, "", op); err != nil {
				return err
			}
			pause.Reset(progressEvery)
			select {
			case <-pause.C:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}, nil
}
