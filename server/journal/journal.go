package journal

import "github.com/selfstead/selfstead/lxcrt/logs"

// What a log is made of, see package logs.
type (
	Entry = logs.Entry
	Query = logs.Query
	Page  = logs.Page
	Log   = logs.Log
)

// Bounds of lines and pages.
const (
	MaxLine  = logs.MaxLine
	MaxLimit = logs.MaxLimit
)

// ErrCursor is returned for a cursor that this package did not make.
var ErrCursor = logs.ErrCursor

// Name is the file with a service's newest lines.
const Name = "service.log"

// Open names the folder of a service's log; it need not exist yet.
func Open(dir string) *Log { return logs.Open(dir, Name) }

// OpenName is Open for another file than Name.
func OpenName(dir, name string) *Log { return logs.Open(dir, name) }
