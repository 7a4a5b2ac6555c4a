package guest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"
	"unicode/utf8"
)

// Limits of the log that PID 1 writes.
const (
	logName      = "service.log"
	maxLine      = 16 << 10
	maxLogFile   = 8 << 20
	keptLogFiles = 3
)

// logFile is service.log in a folder: one JSON object a line,
//
//	{"t":"2026-01-02T03:04:05.000000006Z","s":"stdout","m":"text"}
//
// rotated to service.log.1 (the newest) ... service.log.3 when full. It is
// safe for concurrent use. Writing never blocks the service for long and never
// fails it: what cannot be written is counted and reported by a later line.
type logFile struct {
	dir   string
	limit int64
	now   func() time.Time

	mu   sync.Mutex
	f    *os.File
	size int64
	lost int
	buf  []byte
}

func openLog(dir string) (*logFile, error) {
	l := &logFile{dir: dir, limit: maxLogFile, now: time.Now}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, fmt.Errorf("guest: log: %w", err)
	}
	if err := l.open(); err != nil {
		return nil, err
	}
	return l, nil
}

// open continues the current file. A line cut short by a kill gets its newline.
func (l *logFile) open() error {
	f, err := os.OpenFile(filepath.Join(l.dir, logName), os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o640)
	if err != nil {
		return fmt.Errorf("guest: log: %w", err)
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return fmt.Errorf("guest: log: %w", err)
	}
	l.f, l.size = f, st.Size()
	last := [1]byte{'\n'}
	if l.size > 0 {
		if _, err := f.ReadAt(last[:], l.size-1); err == nil && last[0] != '\n' {
			if n, err := f.WriteString("\n"); err == nil {
				l.size += int64(n)
			}
		}
	}
	return nil
}

// write logs lines of one stream, in one write.
func (l *logFile) write(stream string, lines ...[]byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now().UTC()
	l.buf = l.buf[:0]
	if l.lost > 0 {
		l.buf = appendEntry(l.buf, now, "stderr", []byte("guest: "+strconv.Itoa(l.lost)+" log lines could not be written"))
	}
	for _, line := range lines {
		l.buf = appendEntry(l.buf, now, stream, line)
	}
	if l.size+int64(len(l.buf)) > l.limit && l.size > 0 {
		l.rotateLocked()
	}
	if l.f == nil && l.open() != nil {
		l.lost += len(lines)
		return
	}
	n, err := l.f.Write(l.buf)
	l.size += int64(n)
	if err == nil {
		l.lost = 0
		return
	}
	l.lost += len(lines)
	if n > 0 { // a torn line, for instance on a full disk: take it back
		if l.f.Truncate(l.size-int64(n)) == nil {
			l.size -= int64(n)
		}
	}
}

// rotateLocked shifts the kept files by one and starts a new one. When a
// rename is refused the current file simply grows on.
func (l *logFile) rotateLocked() {
	name := func(i int) string { return filepath.Join(l.dir, logName+"."+strconv.Itoa(i)) }
	for i := keptLogFiles; i > 1; i-- {
		if err := os.Rename(name(i-1), name(i)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return
		}
	}
	if os.Rename(filepath.Join(l.dir, logName), name(1)) != nil {
		return
	}
	l.f.Close()
	l.f = nil
}

func (l *logFile) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.f == nil {
		return nil
	}
	return l.f.Close()
}

// appendEntry renders one line. Bytes that are not UTF-8 become U+FFFD.
func appendEntry(b []byte, t time.Time, stream string, line []byte) []byte {
	b = append(b, `{"t":"`...)
	b = t.AppendFormat(b, time.RFC3339Nano)
	b = append(b, `","s":"`...)
	b = append(b, stream...)
	b = append(b, `","m":`...)
	text, err := json.Marshal(string(line))
	if err != nil {
		text = []byte(`""`)
	}
	b = append(b, text...)
	return append(b, "}\n"...)
}

// lineSplitter cuts a stream into lines of at most maxLine bytes, never inside
// a UTF-8 sequence, without their line ends.
type lineSplitter struct {
	rest []byte
}

// feed returns the lines completed by p; they are valid until the next call.
func (s *lineSplitter) feed(p []byte) [][]byte {
	s.rest = append(s.rest, p...)
	var lines [][]byte
	data := s.rest
	for {
		i := bytes.IndexByte(data, '\n')
		switch {
		case i >= 0 && i <= maxLine:
			lines = append(lines, trimCR(data[:i]))
			data = data[i+1:]
		case len(data) > maxLine:
			cut := runeCut(data[:maxLine])
			lines = append(lines, data[:cut])
			data = data[cut:]
		default:
			if len(lines) > 0 {
				s.rest = append([]byte(nil), data...)
			}
			return lines
		}
	}
}

// flush returns what stands after the last line end, or nil.
func (s *lineSplitter) flush() []byte {
	rest := s.rest
	s.rest = nil
	return trimCR(rest)
}

func trimCR(b []byte) []byte {
	if len(b) > 0 && b[len(b)-1] == '\r' {
		return b[:len(b)-1]
	}
	return b
}

// runeCut is the length of b without a UTF-8 sequence cut off at its end.
func runeCut(b []byte) int {
	for i := len(b) - 1; i >= 0 && i > len(b)-utf8.UTFMax; i-- {
		if utf8.RuneStart(b[i]) {
			if !utf8.FullRune(b[i:]) {
				return i
			}
			break
		}
	}
	return len(b)
}

// idleFlush is how long a line without its end waits for the rest: a prompt or
// progress dots should show up too.
const idleFlush = time.Second

// carry copies r to the log until its end. It closes done then.
func (l *logFile) carry(stream string, r *os.File, done chan<- struct{}, ending <-chan struct{}) {
	defer close(done)
	var s lineSplitter
	buf := make([]byte, 64<<10)
	for {
		wait := time.Time{}
		select {
		case <-ending:
			wait = time.Now().Add(lingering)
		default:
			if len(s.rest) > 0 {
				wait = time.Now().Add(idleFlush)
			}
		}
		_ = r.SetReadDeadline(wait)
		n, err := r.Read(buf)
		if lines := s.feed(buf[:n]); len(lines) > 0 {
			l.write(stream, lines...)
		}
		if err == nil {
			continue
		}
		if rest := s.flush(); len(rest) > 0 {
			l.write(stream, rest)
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			select {
			case <-ending:
				return
			default:
				continue
			}
		}
		if !errors.Is(err, io.EOF) {
			l.write("stderr", []byte("guest: reading the "+stream+" of the service: "+err.Error()))
		}
		return
	}
}
