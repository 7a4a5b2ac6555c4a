package logs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"
)

// Entry is one line of a log.
type Entry struct {
	Time    time.Time `json:"time"`
	Stream  string    `json:"stream"` // Stdout, Stderr or Console
	Message string    `json:"message"`
	Cursor  string    `json:"cursor"` // names the place behind this line
}

// Query asks for one page.
type Query struct {
	Limit  int    // lines at the most; 0 means 50, more than MaxLimit means MaxLimit
	Cursor string // "" reads the newest lines
	Before bool   // with Cursor: the lines before it, not those after it
}

// MaxLimit is the most lines that one page holds.
const MaxLimit = 1000

// Page is a run of lines, oldest first. StartCursor pages back with Before,
// EndCursor forward; both are empty when Entries is.
type Page struct {
	Entries     []Entry `json:"entries"`
	StartCursor string  `json:"startCursor,omitempty"`
	EndCursor   string  `json:"endCursor,omitempty"`
}

// Log is one log: a folder and the name of the newest file in it. It is safe for
// concurrent use, by several processes as well: it holds nothing open between
// calls.
type Log struct{ dir, name string }

// Open names the log; the folder need not exist yet, a log without files is empty.
func Open(dir, name string) *Log { return &Log{dir: dir, name: name} }

// names are the log's files, newest first: opened in this order, a rotation
// meanwhile shows a file twice but never hides one.
func (l *Log) names() ([]string, error) {
	entries, err := os.ReadDir(l.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	oldest := 0
	for _, e := range entries {
		if suffix, ok := strings.CutPrefix(e.Name(), l.name+"."); ok {
			if n, err := strconv.Atoi(suffix); err == nil && n <= maxFiles && strconv.Itoa(n) == suffix {
				oldest = max(oldest, n)
			}
		}
	}
	names := []string{l.name}
	for i := range oldest + 1 { // one more: it may be renamed meanwhile
		names = append(names, l.name+"."+strconv.Itoa(i+1))
	}
	return names, nil
}

// maxFiles bounds what a folder can make a reader open.
const maxFiles = 1000

// files opens what is there, oldest first. A rotation that begins meanwhile could
// show a file twice, or hide an old one: then it looks again.
func (l *Log) files() (out []*file, closeAll func(), err error) {
	for try := 0; ; try++ {
		before := l.newest()
		out, closeAll, err = l.open()
		if err != nil || try == maxLooks || before == l.newest() {
			return out, closeAll, err
		}
		closeAll()
	}
}

// maxLooks bounds how often a writer that rotates all the time is chased. What the
// last look shows has each file once, but may lack some or have them out of order.
const maxLooks = 100

// newest identifies the file that is written to; zero while there is none.
func (l *Log) newest() (id struct{ dev, ino uint64 }) {
	var st syscall.Stat_t
	if syscall.Lstat(filepath.Join(l.dir, l.name), &st) == nil {
		id.dev, id.ino = uint64(st.Dev), st.Ino
	}
	return id
}

// open opens the files once, oldest first, each once.
func (l *Log) open() (out []*file, closeAll func(), err error) {
	closeAll = func() {
		for _, f := range out {
			f.Close()
		}
	}
	names, err := l.names()
	if err != nil {
		return nil, closeAll, fmt.Errorf("logs: %w", err)
	}
	for _, name := range names {
		f, err := openFile(l.dir, name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			closeAll()
			return nil, nil, fmt.Errorf("logs: %w", err)
		}
		if slices.ContainsFunc(out, func(o *file) bool { return os.SameFile(o.info, f.info) }) {
			f.Close()
			continue
		}
		out = append(out, f)
	}
	slices.Reverse(out)
	return out, closeAll, nil
}

// find returns the file and offset of a cursor; a cursor whose file is gone
// gives the start of the oldest file.
func find(files []*file, cursor string) (i int, offset int64, err error) {
	born, offset, err := parseCursor(cursor)
	if err != nil {
		return 0, 0, err
	}
	for i, f := range files {
		if f.born == born {
			return i, offset, nil
		}
	}
	return 0, 0, nil
}

// Read returns one page. Errors: ErrCursor, or what the file system said.
func (l *Log) Read(q Query) (Page, error) {
	limit := q.Limit
	if limit <= 0 {
		limit = 50
	}
	limit = min(limit, MaxLimit)
	files, done, err := l.files()
	if err != nil {
		return Page{}, err
	}
	defer done()
	page := Page{Entries: []Entry{}}
	if q.Cursor != "" && !q.Before {
		i, offset, err := find(files, q.Cursor)
		if err != nil {
			return Page{}, err
		}
		for ; i < len(files) && len(page.Entries) < limit; i, offset = i+1, 0 {
			_, err := files[i].forward(offset, func(e Entry) error {
				if page.Entries = append(page.Entries, e); len(page.Entries) == limit {
					return errFull
				}
				return nil
			})
			if err != nil && err != errFull {
				return Page{}, fmt.Errorf("logs: %w", err)
			}
		}
	} else {
		i, end := len(files)-1, int64(-1)
		if q.Cursor != "" {
			if i, end, err = find(files, q.Cursor); err != nil {
				return Page{}, err
			}
		}
		page.Entries, err = before(files, i, end, limit, q.Cursor)
		if err != nil {
			return Page{}, err
		}
	}
	if n := len(page.Entries); n > 0 {
		page.StartCursor, page.EndCursor = page.Entries[0].Cursor, page.Entries[n-1].Cursor
	}
	return page, nil
}

var errFull = errors.New("logs: page is full")

// before collects up to limit lines that end at end (-1: the end) of file i or
// in older files. The line that cursor itself names is left out: paging back
// from the first line of a page must not repeat it.
func before(files []*file, i int, end int64, limit int, cursor string) ([]Entry, error) {
	out := []Entry{}
	for ; i >= 0 && i < len(files) && len(out) < limit; i, end = i-1, -1 {
		if end < 0 {
			end = files[i].size
		}
		part, err := files[i].backward(end, limit-len(out)+1)
		if err != nil {
			return nil, fmt.Errorf("logs: %w", err)
		}
		if n := len(part); n > 0 && part[n-1].Cursor == cursor {
			part = part[:n-1]
		}
		part = part[max(0, len(part)-(limit-len(out))):]
		out = append(part, out...)
	}
	return out, nil
}

// Follow calls fn for every line after cursor, oldest first, and then for each
// new one as it is written, until ctx ends or fn fails. Without a cursor it
// begins with the newest limit lines. The folder must exist.
func (l *Log) Follow(ctx context.Context, cursor string, limit int, fn func(Entry) error) error {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("logs: watch: %w", err)
	}
	defer w.Close()
	if err := w.Add(l.dir); err != nil {
		return fmt.Errorf("logs: watch: %w", err)
	}
	f := follower{log: l, cursor: cursor}
	if cursor == "" && limit > 0 {
		page, err := l.Read(Query{Limit: limit})
		if err != nil {
			return err
		}
		for _, e := range page.Entries {
			if err := fn(e); err != nil {
				return err
			}
			f.cursor = e.Cursor
		}
	} else if cursor == "" {
		if f.cursor, err = l.end(); err != nil {
			return err
		}
	}
	for {
		if err := f.drain(ctx, fn); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case _, ok := <-w.Events:
			if !ok {
				return os.ErrClosed
			}
		case err, ok := <-w.Errors:
			if !ok {
				return os.ErrClosed
			}
			if !errors.Is(err, fsnotify.ErrEventOverflow) { // after an overflow drain reads all that is new
				return fmt.Errorf("logs: watch: %w", err)
			}
		}
	}
}

// end is the cursor behind the newest line, "" when there is none.
func (l *Log) end() (string, error) {
	page, err := l.Read(Query{Limit: 1})
	return page.EndCursor, err
}

type follower struct {
	log    *Log
	cursor string
}

// drain hands on every whole line after the cursor.
func (f *follower) drain(ctx context.Context, fn func(Entry) error) error {
	files, done, err := f.log.files()
	if err != nil {
		return err
	}
	defer done()
	i, offset := 0, int64(0)
	if f.cursor != "" {
		if i, offset, err = find(files, f.cursor); err != nil {
			return err
		}
	}
	for ; i < len(files); i, offset = i+1, 0 {
		_, err := files[i].forward(offset, func(e Entry) error {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := fn(e); err != nil {
				return err
			}
			f.cursor = e.Cursor
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}
