package patchdb

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/selfstead/selfstead/patchdb/internal/tree"
	"github.com/selfstead/selfstead/patchdb/internal/vfs"
	"github.com/selfstead/selfstead/patchdb/internal/wal"
)

// Options tunes Open. The zero value suits production.
type Options struct {
	CompactEvery int          // revisions between snapshot rewrites; 0 means 4096, negative means never by itself
	History      int          // revisions held for subscribers to resume from; 0 means 1024, negative means none
	ReadOnly     bool         // read the file as it is now: no lock, nothing written, updates refused
	Logger       *slog.Logger // nil means silent

	fs vfs.FS // nil means the real one
}

const (
	defaultCompactEvery = 4096
	defaultHistory      = 1024
	historyBytes        = 4 << 20 // of patch text, whatever History says
)

// DB is an open database. It is safe for use by several goroutines.
type DB struct {
	path   string
	fs     vfs.FS
	opts   Options
	logger *slog.Logger

	writer chan struct{}         // holds a token while an Update's function may run
	head   *state                // newest state, durable or on its way there; guarded by writer
	cur    atomic.Pointer[state] // newest durable state
	fault  atomic.Pointer[error] // why the database is read-only or closed
	hub    *hub

	queueMu sync.Mutex
	queue   []*pending // in the order of their revisions
	leading bool       // some goroutine is writing, or about to
	group   grouping   // guarded by being the one who leads

	logMu   sync.Mutex // held while the log is written, or exchanged
	log     *wal.Log
	next    *successor // a compacted file about to take over
	tip     *state     // what the log holds; guarded by logMu
	base    RevisionID // revision of the log's snapshot; guarded by logMu
	snapped int64      // length of the file after its snapshot; guarded by logMu

	compacting sync.Mutex         // held by the one compaction at a time
	tried      RevisionID         // when the last one began by itself; guarded by logMu
	background sync.WaitGroup     // the compaction that runs by itself
	ctx        context.Context    // ends with stop
	stop       context.CancelFunc // ends that compaction

	closeOnce sync.Once
	closeErr  error
	recovery  Recovery
}

// grouping is what one leader leaves to the next about batches.
type grouping struct {
	handed bool          // others were waiting when the batch was done
	expect int           // how many may come, if all do
	rest   int           // batches not to wait for
	took   time.Duration // of the last batch
}

// state is one revision of the document. It never changes.
type state struct {
	id   RevisionID
	root tree.Node
}

// pending is an update that waits for its record to be durable.
type pending struct {
	st      *state
	rev     *revision // nil: nothing to write, only to wait
	payload []byte
	old     tree.Node
	err     error
	wake    chan bool // true: write the queue; false: done, see err
}

// Recovery says what Open found.
type Recovery struct {
	Snapshot  RevisionID // the revision of the file's snapshot
	Revisions int        // the revisions read after it
	Torn      int64      // bytes of an unfinished write that were cut off the end
}

// Open opens the database at path, creating it with the value null if there is
// none. Errors: ErrLocked while another Open has it; ErrCorrupt where bytes that
// were durable once have changed (nothing is touched then; see Check).
func Open(path string, o Options) (*DB, error) { return open(path, nil, o) }

// Create makes a new database that starts from the dump, revision included.
// The path must be free: the error is fs.ErrExist otherwise.
func Create(path string, d Dump, o Options) (*DB, error) { return open(path, &d, o) }

func open(path string, first *Dump, o Options) (*DB, error) {
	if o.fs == nil {
		o.fs = vfs.OS
		path = target(path)
	}
	if o.ReadOnly && first != nil {
		return nil, &FileError{"create", path, -1, fmt.Errorf("%w: Options.ReadOnly", ErrInvalid)}
	}
	// Without a lock a writer may be at work, and what is read at one moment not
	// fit what is read at the next: damage counts once it stays.
	for try := 1; ; try++ {
		f, err := openFile(path, first, o)
		if err != nil {
			return nil, fileError("open", path, err)
		}
		db, err := load(path, f, o)
		if err == nil {
			return db, nil
		}
		f.Close()
		if err = fileError("open", path, err); !o.ReadOnly || try == readTries || !errors.Is(err, ErrCorrupt) {
			return nil, err
		}
	}
}

const readTries = 5

// fileError says which file err is about.
func fileError(op, path string, err error) error {
	var c *wal.CorruptError
	switch {
	case errors.As(err, &c):
		return &FileError{op, path, c.Offset, cause{ErrCorrupt, errors.New(c.Reason)}}
	case errors.Is(err, vfs.ErrLocked):
		return &FileError{op, path, -1, ErrLocked}
	}
	return &FileError{op, path, -1, err}
}

// load reads the file and makes it ready for writing.
func load(path string, f vfs.File, o Options) (*DB, error) {
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	history := o.History
	if history == 0 {
		history = defaultHistory
	}
	l := loader{hub: newHub(history), parser: tree.Parser{Share: true}}
	res, err := wal.Scan(f, size, l.record)
	if err != nil {
		return nil, err
	}
	if res.Moving && !o.ReadOnly {
		// Nobody else may write with the lock held, so the file read differently twice.
		return nil, &wal.CorruptError{Offset: res.Tail, Reason: "changed while it was read"}
	}
	db := &DB{
		path: path, fs: o.fs, opts: o, logger: o.Logger,
		writer: make(chan struct{}, 1),
		head:   &l.st,
		tip:    &l.st,
		hub:    l.hub,
		base:   l.base, snapped: l.snapped,
		recovery: Recovery{Snapshot: l.base, Revisions: res.Records, Torn: res.Torn},
	}
	if db.logger == nil {
		db.logger = slog.New(slog.DiscardHandler)
	}
	db.cur.Store(db.head)
	db.ctx, db.stop = context.WithCancel(context.Background())
	db.log = wal.NewLog(f, res, size)
	if o.ReadOnly {
		db.fail(fmt.Errorf("%w: opened so", ErrReadOnly))
		return db, nil
	}
	if res.Torn > 0 {
		db.logger.Warn("cut an unfinished write off the end", "file", path, "bytes", res.Torn, "revision", l.st.id)
		if err := db.log.Cut(); err != nil {
			return nil, err
		}
	}
	if db.compactDue() {
		db.compactInBackground()
	}
	return db, nil
}

// loader rebuilds the document from the records.
type loader struct {
	st      state
	base    RevisionID
	snapped int64
	hub     *hub
	parser  tree.Parser
}

func (l *loader) record(r wal.Record) error {
	if r.Kind == wal.KindSnapshot {
		root, err := l.parser.Read(r.Text)
		if bad := (*tree.SyntaxError)(nil); errors.As(err, &bad) || errors.Is(err, tree.ErrDepth) || errors.Is(err, tree.ErrSize) {
			return &wal.CorruptError{Offset: r.Offset, Reason: "snapshot: " + err.Error()}
		}
		if err != nil {
			return err
		}
		l.base = RevisionID(r.ID)
		l.snapped = r.Offset + wal.Space(int(r.Length))
		l.st = state{l.base, root}
		return nil
	}
	ops, err := l.parser.Ops(r.Payload)
	if err != nil {
		return &wal.CorruptError{Offset: r.Offset, Reason: fmt.Sprintf("revision %d: %v", r.ID, err)}
	}
	for i := range ops {
		o := &ops[i]
		root, ch, err := tree.Edit(l.st.root, o.Path, o.Verb, o.Val)
		if err != nil {
			return &wal.CorruptError{Offset: r.Offset, Reason: fmt.Sprintf("revision %d: operation %d: %v", r.ID, i, err)}
		}
		o.Array = ch.Index >= 0 && ch.Verb != tree.VerbReplace
		l.st.root = root
	}
	l.st.id = RevisionID(r.ID)
	if l.hub.limit > 0 {
		l.hub.remember(readRevision(l.st.id, ops, bytes.Clone(r.Payload)))
	}
	return nil
}

// Path is the file's path as it was given to Open, or where that leads if it is
// a symbolic link.
func (db *DB) Path() string { return db.path }

// Recovered says what Open found in the file.
func (db *DB) Recovered() Recovery { return db.recovery }

// Revision is the newest durable revision.
func (db *DB) Revision() RevisionID { return db.cur.Load().id }

// Err is nil while updates are possible, and else the reason why not: it wraps
// ErrReadOnly after a failed write or sync, or ErrClosed.
func (db *DB) Err() error {
	if e := db.fault.Load(); e != nil {
		return *e
	}
	return nil
}

// fail makes the database read-only for the first reason given.
func (db *DB) fail(err error) { db.fault.CompareAndSwap(nil, &err) }

// View calls fn with a snapshot of the newest durable revision. It waits for
// nobody, and costs nothing beyond what fn does.
func (db *DB) View(fn func(tx *Tx) error) error {
	if err := db.Err(); err != nil && errors.Is(err, ErrClosed) {
		return err
	}
	st := db.cur.Load()
	tx := &Tx{id: st.id, edit: editor{root: st.root}}
	defer func() { tx.done = true }()
	return fn(tx)
}

// Dump returns the value at p with its revision. The error is ErrNotFound
// where p leads nowhere.
func (db *DB) Dump(p Pointer) (Dump, error) {
	var d Dump
	err := db.View(func(tx *Tx) error {
		d.ID = tx.id
		return tx.Get(p, &d.Value)
	})
	return d, err
}

// Put sets the value at p: Update with one Tx.Put.
func (db *DB) Put(ctx context.Context, p Pointer, v any) (Revision, error) {
	raw, ok := v.(json.RawMessage)
	if !ok {
		var err error
		if raw, err = json.Marshal(v); err != nil {
			return Revision{}, &PointerError{"put", p, cause{ErrInvalid, err}}
		}
	}
	return db.Update(ctx, func(tx *Tx) error { return tx.Put(p, raw) })
}

// Apply applies a patch, all of it or nothing: Update with one Tx.Apply.
func (db *DB) Apply(ctx context.Context, patch Patch) (Revision, error) {
	return db.Update(ctx, func(tx *Tx) error { return tx.Apply(patch) })
}
