// Package journal reads the log files that a service's PID 1 writes and serves
// them page by page or as they grow.
//
// A log is a folder with service.log (the newest lines) and service.log.1 to
// service.log.3 (older ones, moved there by size). Each line is one JSON object
// {"t": RFC 3339 time, "s": "stdout" or "stderr", "m": text}. The files are
// written from inside a container, so nothing in them is trusted: a name that
// is not a regular file is not opened, a line that does not parse is passed
// over, and a line counts only up to MaxLine bytes.
//
// A cursor names the end of a line: the time of the first line of its file, in
// hexadecimal nanoseconds, and the byte offset behind the line. It survives
// rotation, which only renames files. A cursor whose file is gone reads from
// the oldest line that is left.
package journal
