// Package logs reads logs that are kept as lines of JSON in rotated files, page by
// page or as they grow: those of a container whose Spec has a Log, and those that
// the guest program writes inside one.
//
// A log is a folder with NAME (the newest lines) and NAME.1, NAME.2, ... (older
// ones, moved there by size). Each line is one object {"t": RFC 3339 time, "s":
// "stdout", "stderr" or "console", "m": text}. Whoever writes them may be inside a
// container, so nothing in them is trusted: a name that is not a regular file is
// not opened, a line that does not parse is passed over, and a line counts only
// up to MaxLine bytes.
//
// A cursor names the end of a line: the time of the first line of its file, in
// hexadecimal nanoseconds, and the byte offset behind the line. It survives
// rotation, which only renames files. A cursor whose file is gone reads from
// the oldest line that is left.
//
// Follow hears of new lines through inotify, so it works in any process that can
// read the folder and costs nothing while nothing is written.
package logs
