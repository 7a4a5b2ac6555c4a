package problem

import (
	"fmt"
	"net/http"
)

// ContentType is the media type of a Problem (RFC 9457 section 6.1).
const ContentType = "application/problem+json"

// typeBase is the prefix of every Problem's type: a URI that names the kind of
// problem and need not resolve (RFC 9457 section 3.1.1).
const typeBase = "urn:selfstead:problem:"

// Problem is an error that a caller of the API sees. It is an error value too,
// so that a domain package returns it as any other; treat it as immutable, the
// With methods return changed copies.
type Problem struct {
	Type     string   `json:"type" doc:"URI that names the kind of problem; urn:selfstead:problem: followed by the code" example:"urn:selfstead:problem:not-found"`
	Title    string   `json:"title" doc:"the HTTP status in words" example:"Not Found"`
	Status   int      `json:"status" doc:"the HTTP status" example:"404"`
	Detail   string   `json:"detail,omitempty" doc:"what went wrong this time, for people" example:"there is no package hello-world"`
	Instance string   `json:"instance,omitempty" doc:"URI reference of this very occurrence; the request's id"`
	Code     string   `json:"code" doc:"stable name of the kind of problem, for programs" example:"not-found"`
	Errors   []Detail `json:"errors,omitempty" doc:"each field that is at fault"`
	Entry    string   `json:"entry,omitempty" doc:"for a fault in a package file: the part of the archive at fault" example:"images/x86_64/main.squashfs"`
	Offset   *int64   `json:"offset,omitempty" doc:"for a fault in a package file: where it stands, bytes from the start of the file" example:"4096"`
	Fix      *Fix     `json:"fix,omitempty" doc:"a call that helps"`

	cause   error
	headers http.Header
}

// Detail is one field at fault.
type Detail struct {
	Location string `json:"location,omitempty" doc:"path to the field" example:"body.password"`
	Message  string `json:"message" doc:"what is wrong with it" example:"expected length >= 8"`
	Value    any    `json:"value,omitempty" doc:"the value that was refused; left out for secrets"`
}

// Fix names a call of this API that solves the problem.
type Fix struct {
	Method string `json:"method" example:"POST"`
	Path   string `json:"path" example:"/v1/setup:claim"`
	Detail string `json:"detail,omitempty"`
}

// New is a problem with an HTTP status of 400 or more, a stable code (lower
// case words joined by hyphens) and a sentence for people.
func New(status int, code, detail string) *Problem {
	return &Problem{Type: typeBase + code, Title: http.StatusText(status), Status: status, Code: code, Detail: detail}
}

// Newf is New with a formatted detail; a %w in the format becomes the cause.
func Newf(status int, code, format string, args ...any) *Problem {
	err := fmt.Errorf(format, args...)
	p := New(status, code, err.Error())
	p.cause = err
	return p
}

// Error says the code and the detail, and the cause where it is not the
// detail's own.
func (p *Problem) Error() string {
	s := p.Code
	if p.Detail != "" {
		s += ": " + p.Detail
	}
	if p.cause != nil && p.cause.Error() != p.Detail {
		s += ": " + p.cause.Error()
	}
	return s
}

// Unwrap returns the cause, which callers of the API never see.
func (p *Problem) Unwrap() error { return p.cause }

// GetStatus is the HTTP status; it makes a Problem usable as a huma error.
func (p *Problem) GetStatus() int { return p.Status }

// ContentType makes huma send a Problem as application/problem+json.
func (p *Problem) ContentType(string) string { return ContentType }

// GetHeaders are headers that go with the answer, such as Retry-After.
func (p *Problem) GetHeaders() http.Header { return p.headers }

// Is reports whether target is a Problem of the same code, so that
// errors.Is(err, problem.New(0, "not-found", "")) works.
func (p *Problem) Is(target error) bool {
	t, ok := target.(*Problem)
	return ok && t.Code == p.Code
}

// Because returns a copy that wraps cause; it goes to the log, not to callers.
func (p *Problem) Because(cause error) *Problem {
	c := *p
	c.cause = cause
	return &c
}

// At returns a copy that says which entry of a package file is at fault and at
// which byte of the file; a negative offset is unknown and left out.
func (p *Problem) At(entry string, offset int64) *Problem {
	c := *p
	c.Entry, c.Offset = entry, nil
	if offset >= 0 {
		c.Offset = &offset
	}
	return &c
}

// WithField returns a copy with one more field at fault.
func (p *Problem) WithField(location, message string, value any) *Problem {
	c := *p
	c.Errors = append(append([]Detail(nil), p.Errors...), Detail{Location: location, Message: message, Value: value})
	return &c
}

// WithFix returns a copy that names the call which helps.
func (p *Problem) WithFix(method, path, detail string) *Problem {
	c := *p
	c.Fix = &Fix{Method: method, Path: path, Detail: detail}
	return &c
}

// WithInstance returns a copy that names this occurrence.
func (p *Problem) WithInstance(uri string) *Problem {
	c := *p
	c.Instance = uri
	return &c
}

// WithHeader returns a copy whose answer carries the header.
func (p *Problem) WithHeader(name, value string) *Problem {
	c := *p
	c.headers = p.headers.Clone()
	if c.headers == nil {
		c.headers = http.Header{}
	}
	c.headers.Set(name, value)
	return &c
}
