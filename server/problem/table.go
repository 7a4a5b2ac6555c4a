package problem

import (
	"context"
	"errors"
	"net/http"
	"syscall"
)

// Codes that more than one room uses. A code is part of the API: it may be
// added, never renamed.
const (
	CodeInternal         = "internal"
	CodeNotFound         = "not-found"
	CodeConflict         = "conflict"
	CodeInvalid          = "invalid"
	CodeCancelled        = "cancelled"
	CodeTimeout          = "timeout"
	CodeStopping         = "stopping"
	CodeDiskFull         = "disk-full"
	CodeUnauthorized     = "unauthorized"
	CodeAlreadyInstalled = "already-installed"
	CodeBusy             = "busy"

	CodeNotAnArchive        = "not-an-s9pk"          // 422: the file does not begin as an s9pk v2
	CodeTruncated           = "truncated"            // 422: the file ends too early
	CodeCorrupt             = "corrupt"              // 422: bytes do not match their hash or the layout's rules
	CodeSignature           = "bad-signature"        // 422: the signature is not the signer's
	CodeManifest            = "bad-manifest"         // 422: the manifest breaks a rule
	CodeArchitecture        = "unknown-architecture" // 422: no image for this machine
	CodeIncompatible        = "incompatible"         // 422: asks for something this server does not have
	CodeServiceNotReachable = "service-unavailable"  // 503: the service's own program does not answer
)

// Rule maps the errors that match a sentinel to a problem.
type Rule struct {
	Is     error  // matched by errors.Is
	Status int    // of the answer
	Code   string // of the answer
	Detail string // the sentence callers see
}

// rules is the one table from an error that is not a Problem to a Problem;
// the first match wins.
var rules = []Rule{
	{context.Canceled, statusClientGone, CodeCancelled, "the work was cancelled"},
	{context.DeadlineExceeded, http.StatusGatewayTimeout, CodeTimeout, "the work took too long"},
	{syscall.ENOSPC, http.StatusInsufficientStorage, CodeDiskFull, "the disk is full"},
	{syscall.EDQUOT, http.StatusInsufficientStorage, CodeDiskFull, "the disk quota is used up"},
}

// statusClientGone is nginx's word for a client that went away; nobody reads
// the answer, the log does.
const statusClientGone = 499

// From returns the Problem that err is or wraps, else the one the table gives,
// else "internal", which hides err from callers and keeps it as the cause.
// From(nil) is nil.
func From(err error) *Problem {
	if err == nil {
		return nil
	}
	var p *Problem
	if errors.As(err, &p) {
		if error(p) == err {
			return p
		}
		return p.Because(err)
	}
	for _, r := range rules {
		if errors.Is(err, r.Is) {
			q := New(r.Status, r.Code, r.Detail)
			if q.Title == "" {
				q.Title = "Cancelled"
			}
			return q.Because(err)
		}
	}
	return New(http.StatusInternalServerError, CodeInternal, "the server failed; its log says why").Because(err)
}

// NotFound is the 404 of a thing that does not exist.
func NotFound(kind, id string) *Problem {
	return New(http.StatusNotFound, CodeNotFound, "there is no "+kind+" "+id)
}
