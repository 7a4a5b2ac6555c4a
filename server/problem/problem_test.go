package problem_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/selfstead/selfstead/server/problem"
)

func TestBodyHasTheMembersOfRFC9457(t *testing.T) {
	t.Parallel()
	p := problem.New(422, problem.CodeCorrupt, "content does not match its hash").
		At("images/x86_64/main.squashfs", 4096).
		WithField("body", "flipped", nil).
		WithFix("DELETE", "/v1/packages/x", "remove it first").
		WithInstance("urn:uuid:1").
		Because(errors.New("secret cause"))
	body, err := json.Marshal(p)
	require.NoError(t, err)
	assert.JSONEq(t, `{
		"type": "urn:selfstead:problem:corrupt", "title": "Unprocessable Entity", "status": 422,
		"detail": "content does not match its hash", "instance": "urn:uuid:1", "code": "corrupt",
		"errors": [{"location": "body", "message": "flipped"}],
		"entry": "images/x86_64/main.squashfs", "offset": 4096,
		"fix": {"method": "DELETE", "path": "/v1/packages/x", "detail": "remove it first"}
	}`, string(body))
}

func TestWithLeavesTheOriginalAlone(t *testing.T) {
	t.Parallel()
	base := problem.New(422, "invalid", "x").WithField("a", "bad", 1)
	one, two := base.WithField("b", "bad", 2), base.WithField("c", "bad", 3)
	assert.Len(t, base.Errors, 1)
	assert.Equal(t, "b", one.Errors[1].Location)
	assert.Equal(t, "c", two.Errors[1].Location)
	assert.Nil(t, base.At("e", -1).Offset)
	assert.Empty(t, base.Entry)
}

func TestFrom(t *testing.T) {
	t.Parallel()
	own := problem.NotFound("package", "hello-world")
	tests := []struct {
		name   string
		err    error
		status int
		code   string
	}{
		{"a problem", own, 404, "not-found"},
		{"a wrapped problem", fmt.Errorf("service: get: %w", own), 404, "not-found"},
		{"disk full", &os.PathError{Op: "write", Path: "/secret", Err: syscall.ENOSPC}, 507, "disk-full"},
		{"cancelled", fmt.Errorf("x: %w", context.Canceled), 499, "cancelled"},
		{"deadline", context.DeadlineExceeded, 504, "timeout"},
		{"anything else", errors.New("secret"), 500, "internal"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := problem.From(tt.err)
			assert.Equal(t, tt.status, p.GetStatus())
			assert.Equal(t, tt.code, p.Code)
			assert.NotEmpty(t, p.Title)
			require.ErrorIs(t, p, tt.err)
			body, err := json.Marshal(p)
			require.NoError(t, err)
			assert.NotContains(t, string(body), "secret")
		})
	}
	assert.Nil(t, problem.From(nil))
}

func TestIsComparesCodes(t *testing.T) {
	t.Parallel()
	err := fmt.Errorf("x: %w", problem.Newf(409, problem.CodeBusy, "package %s: %w", "a", os.ErrExist))
	assert.ErrorIs(t, err, problem.New(0, problem.CodeBusy, ""))
	assert.NotErrorIs(t, err, problem.New(0, problem.CodeConflict, ""))
	assert.ErrorIs(t, err, os.ErrExist)
	assert.Equal(t, "x: busy: package a: file already exists", err.Error())
}
