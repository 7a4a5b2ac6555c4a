package journal

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// Bounds of a log that a Writer writes: NAME and NAME.1 to NAME.3.
const (
	maxFile  = 4 << 20 // bytes
	oldFiles = 3
)

// Writer writes a log in the form that Log reads: each Write is one line. It is
// safe for concurrent use. Close it.
type Writer struct {
	path string
	max  int64

	mu   sync.Mutex
	f    *os.File
	size int64
}

// NewWriter goes on with the log of that name, or begins it.
func NewWriter(dir, name string) (*Writer, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	w := &Writer{path: filepath.Join(dir, name), max: maxFile}
	return w, w.openLocked()
}

func (w *Writer) openLocked() error {
	f, err := os.OpenFile(w.path, os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		return errors.Join(fmt.Errorf("journal: %w", err), f.Close())
	}
	w.f, w.size = f, info.Size()
	last := make([]byte, 1)
	if w.size > 0 {
		if _, err := f.ReadAt(last, w.size-1); err == nil && last[0] != '\n' { // cut short when the server died
			n, err := f.WriteString("\n")
			w.size += int64(n)
			if err != nil {
				return errors.Join(fmt.Errorf("journal: %w", err), f.Close())
			}
		}
	}
	return nil
}

// Write writes one line.
func (w *Writer) Write(p []byte) (int, error) {
	line, err := json.Marshal(struct {
		Time    time.Time `json:"t"`
		Stream  string    `json:"s"`
		Message string    `json:"m"`
	}{time.Now().UTC(), "stderr", string(bytes.TrimRight(p, "\n"))})
	if err != nil {
		return 0, fmt.Errorf("journal: %w", err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.f == nil {
		return 0, fs.ErrClosed
	}
	if w.size > 0 && w.size+int64(len(line)) > w.max {
		if err := w.rotateLocked(); err != nil {
			return 0, err
		}
	}
	n, err := w.f.Write(append(line, '\n'))
	w.size += int64(n)
	if err != nil {
		return 0, fmt.Errorf("journal: %w", err)
	}
	return len(p), nil
}

func (w *Writer) rotateLocked() error {
	for i := oldFiles - 1; i >= 0; i-- {
		from := w.path
		if i > 0 {
			from = fmt.Sprintf("%s.%d", w.path, i)
		}
		if err := os.Rename(from, fmt.Sprintf("%s.%d", w.path, i+1)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("journal: %w", err)
		}
	}
	w.f.Close() //nolint:errcheck // nothing is buffered
	return w.openLocked()
}

// Close ends writing. It may be called twice.
func (w *Writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.f == nil {
		return nil
	}
	err := w.f.Close()
	w.f = nil
	return err
}
