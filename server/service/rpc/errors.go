package rpc

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// Codes of the JSON-RPC layer itself (JSON-RPC 2.0 section 5.1).
const (
	CodeParse          = -32700
	CodeInvalidRequest = -32600
	CodeMethodNotFound = -32601
	CodeInvalidParams  = -32602
	CodeInternal       = -32603
)

// ErrClosed is returned by a client or server that was closed.
var ErrClosed = errors.New("rpc: connection to the container is closed")

// ErrTooLong is returned when a line is longer than the limit.
var ErrTooLong = errors.New("rpc: line is too long")

// Error is an error object as it stands on the wire, in both directions.
// Server handlers return one to choose the code; any other error is sent with
// code 1.
type Error struct {
	Code    int             `json:"code"`
	Message string          `json:"message"`
	Data    json.RawMessage `json:"data,omitempty"`
}

// NewError is an error object with the data member that callers expect:
// details for people, nothing else.
func NewError(code int, message, details string) *Error {
	data, _ := json.Marshal(errorData{Details: details})
	return &Error{Code: code, Message: message, Data: data}
}

type errorData struct {
	Details string `json:"details"`
	Debug   string `json:"debug"`
	Info    any    `json:"info"`
}

// Details is the text for people: data.details, a plain string in data, or
// the message. Runtimes often send only "object" as message.
func (e *Error) Details() string {
	var d errorData
	if json.Unmarshal(e.Data, &d) == nil && d.Details != "" {
		return d.Details
	}
	var s string
	if json.Unmarshal(e.Data, &s) == nil && s != "" {
		return s
	}
	return e.Message
}

// Debug is data.debug, usually a stack.
func (e *Error) Debug() string {
	var d errorData
	_ = json.Unmarshal(e.Data, &d)
	return d.Debug
}

// Error implements error.
func (e *Error) Error() string {
	text := strings.TrimPrefix(e.Details(), "Error: ")
	return fmt.Sprintf("rpc: code %d: %s", e.Code, text)
}
