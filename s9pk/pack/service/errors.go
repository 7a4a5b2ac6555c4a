package service

import (
	"errors"
	"fmt"
	"strings"
)

// ErrService is wrapped by every error about a service.yaml.
var ErrService = errors.New("service: not a service description")

// Fault is one thing that is wrong with a service.yaml.
type Fault struct {
	File         string
	Line, Column int    // from 1; 0 when it is about the whole
	Path         string // such as processes.web.ports; "" is the whole
	Reason       string
}

func (f *Fault) Error() string {
	var b strings.Builder
	b.WriteString(f.File)
	if f.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", f.Line, f.Column)
	}
	b.WriteString(": ")
	if f.Path != "" {
		b.WriteString(f.Path + ": ")
	}
	b.WriteString(f.Reason)
	return b.String()
}

func (f *Fault) Unwrap() error { return ErrService }

// Faults are all of them, in the order of the file. There is at least one.
type Faults []*Fault

func (f Faults) Error() string {
	lines := make([]string, len(f))
	for i, fault := range f {
		lines[i] = fault.Error()
	}
	return strings.Join(lines, "\n")
}

func (f Faults) Unwrap() error { return ErrService }
