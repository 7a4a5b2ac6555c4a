package lxcrttest

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/selfstead/selfstead/lxcrt"
)

// lineWriter keeps a fake container's log as lxcrt's logger does.
type lineWriter struct {
	dir      string
	maxSize  int64
	maxFiles int

	mu   sync.Mutex
	f    *os.File // guarded by mu
	size int64    // guarded by mu
	rest map[string][]byte
}

func openLines(dir string, l lxcrt.Log) (*lineWriter, error) {
	w := &lineWriter{dir: dir, maxSize: l.MaxSize, maxFiles: l.MaxFiles, rest: map[string][]byte{}}
	if w.maxSize == 0 {
		w.maxSize = 8 << 20
	}
	if w.maxFiles == 0 {
		w.maxFiles = 4
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	return w, w.openLocked()
}

func (w *lineWriter) path(i int) string {
	if i == 0 {
		return filepath.Join(w.dir, lxcrt.LogName)
	}
	return filepath.Join(w.dir, lxcrt.LogName+"."+strconv.Itoa(i))
}

func (w *lineWriter) openLocked() error {
	f, err := os.OpenFile(w.path(0), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return err
	}
	w.f, w.size = f, st.Size()
	return nil
}

type lineStream struct {
	w    *lineWriter
	name string
}

func (w *lineWriter) stream(name string) lineStream { return lineStream{w, name} }

func (s lineStream) Write(b []byte) (int, error) {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	data := append(s.w.rest[s.name], b...)
	for {
		i := bytes.IndexByte(data, '\n')
		if i < 0 {
			break
		}
		if err := s.w.lineLocked(s.name, data[:i]); err != nil {
			return 0, err
		}
		data = data[i+1:]
	}
	s.w.rest[s.name] = bytes.Clone(data)
	return len(b), nil
}

func (w *lineWriter) lineLocked(name string, text []byte) error {
	b, err := json.Marshal(map[string]any{"t": time.Now().UTC(), "s": name, "m": strings.ToValidUTF8(strings.TrimSuffix(string(text), "\r"), "\uFFFD")})
	if err != nil {
		return err
	}
	b = append(b, '\n')
	if w.size > 0 && w.size+int64(len(b)) > w.maxSize {
		w.f.Close()
		for i := w.maxFiles - 1; i > 0; i-- {
			if err := os.Rename(w.path(i-1), w.path(i)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		if w.maxFiles == 1 {
			_ = os.Remove(w.path(0))
		}
		if err := w.openLocked(); err != nil {
			return err
		}
	}
	n, err := w.f.Write(b)
	w.size += int64(n)
	return err
}

// close writes what has no line end.
func (w *lineWriter) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for name, text := range w.rest {
		if len(text) > 0 {
			_ = w.lineLocked(name, text)
		}
	}
	w.f.Close()
}
