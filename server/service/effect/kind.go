package effect

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"syscall"

	"github.com/selfstead/selfstead/patchdb"
	"github.com/selfstead/selfstead/server/network"
	"github.com/selfstead/selfstead/server/problem"
	"github.com/selfstead/selfstead/server/service/rpc"
)

// The error kinds that effects answer with (StartOS error kinds).
const (
	KindUnknown         = 1
	KindFilesystem      = 2
	KindNotFound        = 6
	KindNetwork         = 9
	KindDeserialization = 12
	KindDependency      = 17
	KindInvalidID       = 30
	KindAuthorization   = 34
	KindAction          = 36
	KindInvalidRequest  = 38
	KindUninitialized   = 40
	KindOpenSSL         = 49
	KindTimeout         = 71
	KindLXC             = 72
	KindCancelled       = 73
)

var labels = map[int]string{
	KindUnknown: "Unknown Error", KindFilesystem: "Filesystem I/O Error", KindNotFound: "Not Found",
	KindNetwork: "Network Error", KindDeserialization: "Deserialization Error", KindDependency: "Dependency Error",
	KindInvalidID: "Invalid ID", KindAuthorization: "Unauthorized", KindAction: "Action Failed",
	KindInvalidRequest: "Invalid Request", KindUninitialized: "Uninitialized", KindOpenSSL: "OpenSSL Error",
	KindTimeout: "Timeout Error", KindLXC: "LXC Error", KindCancelled: "Cancelled",
	rpc.CodeInvalidParams: "Invalid params", rpc.CodeMethodNotFound: "Method not found",
}

// Fail is an error of one kind, as callers see it.
func Fail(kind int, format string, args ...any) *rpc.Error {
	return rpc.NewError(kind, labels[kind], fmt.Sprintf(format, args...))
}

// Translate gives any error the kind that callers know it by.
func Translate(err error) error {
	var e *rpc.Error
	var p *problem.Problem
	switch {
	case err == nil, errors.As(err, &e):
		return err
	case errors.As(err, &p):
		switch p.Status {
		case 404:
			return Fail(KindNotFound, "%s", p.Detail)
		case 504:
			return Fail(KindTimeout, "%s", p.Detail)
		case 400, 409, 422:
			return Fail(KindInvalidRequest, "%s", p.Detail)
		}
		return Fail(KindUnknown, "%s", p.Detail)
	case errors.Is(err, network.ErrInvalid):
		return Fail(KindInvalidRequest, "%s", err)
	case errors.Is(err, network.ErrNoFreePort), errors.Is(err, network.ErrPortTaken):
		return Fail(KindNetwork, "%s", err)
	case errors.Is(err, network.ErrNotFound), errors.Is(err, patchdb.ErrNotFound), errors.Is(err, fs.ErrNotExist):
		return Fail(KindNotFound, "%s", err)
	case errors.Is(err, context.DeadlineExceeded):
		return Fail(KindTimeout, "%s", err)
	case errors.Is(err, context.Canceled), errors.Is(err, rpc.ErrClosed):
		return Fail(KindCancelled, "%s", err)
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, fs.ErrPermission):
		return Fail(KindFilesystem, "%s", err)
	}
	return Fail(KindUnknown, "%s", err)
}

var idPattern = regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`)

// ID is a name that came in from a service.
type ID string

func (id ID) check() error {
	if !idPattern.MatchString(string(id)) || len(id) > 255 {
		return Fail(KindInvalidID, "%q is not an id: lower case letters and digits, joined by single hyphens", string(id))
	}
	return nil
}

func checkIDs(ids ...ID) error {
	for _, id := range ids {
		if err := id.check(); err != nil {
			return err
		}
	}
	return nil
}

func texts(ids []ID) []string {
	list := make([]string, len(ids))
	for i, id := range ids {
		list[i] = string(id)
	}
	return list
}

func invalid(format string, args ...any) error { return Fail(rpc.CodeInvalidParams, format, args...) }
