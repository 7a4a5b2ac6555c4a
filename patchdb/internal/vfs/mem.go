package vfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"sync"
	"syscall"
)

// ErrCrashed is what every call returns once a Mem has crashed.
var ErrCrashed = errors.New("the machine crashed")

// Mem is a file system in memory that remembers what was synced, for tests. It
// can fail or stop at any call, and Crash makes the file system that a machine
// would find after losing power: of what was not synced each sector, each
// file length and each directory entry is there or not, independently.
type Mem struct {
	mu    sync.Mutex
	names map[string]*inode
	// undo is what each entry changed since the last SyncDir was before, oldest first.
	undo   []entry
	ops    int
	plan   func(op Call) Outcome
	down   bool
	opened map[*inode]bool // locked
}

type entry struct {
	name string
	node *inode
}

type inode struct {
	data []byte
	undo []change // what happened since the last sync, oldest first
}

// change is how to take one write or truncation back.
type change struct {
	size int    // the length before
	off  int    // where old belongs
	old  []byte // what was there
}

// resize sets the length, remembering what a cut takes away.
func (n *inode) resize(size int) {
	c := change{size: len(n.data), off: len(n.data)}
	if size < len(n.data) {
		c.off, c.old = size, append([]byte{}, n.data[size:]...)
		clear(n.data[size:])
		n.data = n.data[:size]
	} else {
		n.data = append(n.data, make([]byte, size-len(n.data))...)
	}
	n.undo = append(n.undo, c)
}

func (n *inode) overwrite(off int, b []byte) {
	if off+len(b) > len(n.data) {
		n.resize(off + len(b))
	}
	n.undo = append(n.undo, change{len(n.data), off, append([]byte{}, n.data[off:off+len(b)]...)})
	copy(n.data[off:], b)
}

// versions are the contents since the last sync, oldest first.
func (n *inode) versions() [][]byte {
	all := make([][]byte, len(n.undo)+1)
	all[len(n.undo)] = n.data
	for i := len(n.undo) - 1; i >= 0; i-- {
		u := n.undo[i]
		v := make([]byte, max(u.size, len(all[i+1])))
		copy(v, all[i+1])
		copy(v[u.off:], u.old)
		all[i] = v[:u.size]
	}
	return all
}

// Call is one call that may change something, as a plan sees it.
type Call struct {
	N    int    // counted from 1
	Op   string // "create", "write", "writeback", "truncate", "sync", "link", "rename", "remove", "syncdir"
	Name string
	Size int // of a write
}

// Outcome is what becomes of a call. The zero value lets it pass.
type Outcome struct {
	Err   error // returned; the call has no effect, except
	Part  int   // a write that writes so many bytes first
	Crash bool  // the machine stops, with Part written
	After bool  // with Crash: the call is done first
}

// NewMem returns an empty file system. plan may be nil.
func NewMem(plan func(Call) Outcome) *Mem {
	return &Mem{names: map[string]*inode{}, opened: map[*inode]bool{}, plan: plan}
}

// Calls is how many calls a plan has been asked about, or would have been.
func (m *Mem) Calls() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.ops
}

// Down reports whether the machine has crashed.
func (m *Mem) Down() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.down
}

// SetPlan exchanges the plan.
func (m *Mem) SetPlan(plan func(Call) Outcome) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.plan = plan
}

// enter asks the plan. Called with mu held.
func (m *Mem) enter(op, name string, size int) (part int, err error, after bool) {
	if m.down {
		return 0, ErrCrashed, false
	}
	m.ops++
	if m.plan == nil {
		return size, nil, false
	}
	o := m.plan(Call{m.ops, op, name, size})
	switch {
	case o.Crash && o.After:
		return size, nil, true
	case o.Crash:
		m.down = true
		return min(o.Part, size), ErrCrashed, false
	case o.Err != nil:
		return min(o.Part, size), o.Err, false
	}
	return size, nil, false
}

// leave stops the machine behind a call.
func (m *Mem) leave(after bool) error {
	if after {
		m.down = true
		return ErrCrashed
	}
	return nil
}

// Open implements FS.
func (m *Mem) Open(name string, write bool) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.down {
		return nil, ErrCrashed
	}
	n := m.names[name]
	if n == nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return &memFile{m: m, n: n, name: name, write: write}, nil
}

// Create implements FS.
func (m *Mem) Create(name string) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, err, after := m.enter("create", name, 0)
	if err != nil {
		return nil, err
	}
	n := m.names[name]
	if n == nil {
		n = &inode{}
		m.set(name, n)
	}
	return &memFile{m: m, n: n, name: name, write: true}, m.leave(after)
}

func (m *Mem) set(name string, n *inode) {
	m.undo = append(m.undo, entry{name, m.names[name]})
	if n == nil {
		delete(m.names, name)
	} else {
		m.names[name] = n
	}
}

func (m *Mem) change(op, name string, do func() error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, err, after := m.enter(op, name, 0)
	if err == nil {
		err = do()
	}
	if err != nil {
		return err
	}
	return m.leave(after)
}

// Link implements FS.
func (m *Mem) Link(from, to string) error {
	return m.change("link", from, func() error {
		if m.names[to] != nil {
			return &fs.PathError{Op: "link", Path: to, Err: fs.ErrExist}
		}
		m.set(to, m.names[from])
		return nil
	})
}

// Rename implements FS.
func (m *Mem) Rename(from, to string) error {
	return m.change("rename", from, func() error {
		m.set(to, m.names[from])
		m.set(from, nil)
		return nil
	})
}

// Remove implements FS.
func (m *Mem) Remove(name string) error {
	return m.change("remove", name, func() error {
		if m.names[name] == nil {
			return fs.ErrNotExist
		}
		m.set(name, nil)
		return nil
	})
}

// SyncDir implements FS.
func (m *Mem) SyncDir(name string) error {
	return m.change("syncdir", name, func() error { m.undo = nil; return nil })
}

// Names implements FS.
func (m *Mem) Names(name string, f File) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.down {
		return false, ErrCrashed
	}
	n := m.names[name]
	if n == nil {
		return false, fs.ErrNotExist
	}
	return f.(*memFile).n == n, nil
}

// Keep is what Crash keeps of what was not synced.
type Keep int

// The ways to lose power.
const (
	KeepNothing Keep = iota
	KeepAll
	KeepSome
)

const sector = 512

// Crash returns the file system found after losing power. The old one goes on
// as if nothing had happened, unless it has crashed.
func (m *Mem) Crash(keep Keep, r *rand.Rand) *Mem {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := NewMem(nil)
	copies := map[*inode]*inode{}
	survive := func(n *inode) *inode {
		if copies[n] == nil {
			copies[n] = &inode{data: n.crash(keep, r)}
		}
		return copies[n]
	}
	for name, n := range m.names {
		c.names[name] = survive(n)
	}
	if keep == KeepAll {
		return c
	}
	// Undo what each name went through since the directory was synced, from
	// some moment on.
	cut := map[string]int{}
	for i := len(m.undo) - 1; i >= 0; i-- {
		u := m.undo[i]
		if _, ok := cut[u.name]; !ok {
			cut[u.name] = 0
			if keep == KeepSome {
				cut[u.name] = r.IntN(len(m.undo) + 1)
			}
		}
		if i < cut[u.name] {
			continue
		}
		if u.node == nil {
			delete(c.names, u.name)
		} else {
			c.names[u.name] = survive(u.node)
		}
	}
	return c
}

func (n *inode) crash(keep Keep, r *rand.Rand) []byte {
	versions := n.versions()
	switch keep {
	case KeepAll:
		versions = versions[len(versions)-1:]
	case KeepNothing:
		versions = versions[:1]
	}
	out := make([]byte, len(versions[r.IntN(len(versions))]))
	for at := 0; at < len(out); at += sector {
		if v := versions[r.IntN(len(versions))]; at < len(v) {
			copy(out[at:min(at+sector, len(out))], v[at:])
		}
	}
	return out
}

// Bytes returns the content of a file, nil where there is none.
func (m *Mem) Bytes(name string) []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	if n := m.names[name]; n != nil {
		return append([]byte{}, n.data...)
	}
	return nil
}

// List lists the names.
func (m *Mem) List() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []string
	for n := range m.names {
		all = append(all, n)
	}
	return all
}

type memFile struct {
	m      *Mem
	n      *inode
	name   string
	write  bool
	locked bool
	closed bool
}

func (f *memFile) ReadAt(b []byte, off int64) (int, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if f.m.down {
		return 0, ErrCrashed
	}
	if off >= int64(len(f.n.data)) {
		return 0, io.EOF
	}
	n := copy(b, f.n.data[off:])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (f *memFile) WriteAt(b []byte, off int64) (int, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if !f.write || f.closed {
		return 0, fmt.Errorf("write %s: %w", f.name, syscall.EBADF)
	}
	part, err, after := f.m.enter("write", f.name, len(b))
	if part > 0 {
		f.n.overwrite(int(off), b[:part])
	}
	if err != nil {
		return part, err
	}
	return part, f.m.leave(after)
}

func (f *memFile) Truncate(size int64) error {
	return f.m.change("truncate", f.name, func() error {
		f.n.resize(int(size))
		return nil
	})
}

func (f *memFile) Sync() error {
	return f.m.change("sync", f.name, func() error { f.n.undo = nil; return nil })
}

func (f *memFile) Writeback(_, _ int64) error {
	return f.m.change("writeback", f.name, func() error { return nil })
}

func (f *memFile) Size() (int64, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if f.m.down {
		return 0, ErrCrashed
	}
	return int64(len(f.n.data)), nil
}

func (f *memFile) Lock() error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if f.m.opened[f.n] {
		return ErrLocked
	}
	f.m.opened[f.n], f.locked = true, true
	return nil
}

func (f *memFile) Close() error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if f.locked {
		delete(f.m.opened, f.n)
	}
	f.closed, f.locked = true, false
	return nil
}
