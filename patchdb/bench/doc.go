// Command bench measures what patchdb sets out to do, beside a bare
// append-and-fdatasync loop, bbolt and SQLite. It is a module of its own, so
// that users of patchdb do not inherit what it is compared with.
//
//	go run . [-dir DIR] [-seconds 2] [name ...]
package main
