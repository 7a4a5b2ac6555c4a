package wal

import (
	"errors"
	"math"
	"time"

	"github.com/selfstead/selfstead/patchdb/internal/vfs"
)

// Log appends records to a file. It is not safe for concurrent use.
type Log struct {
	File vfs.File
	Salt uint64

	tail    int64 // durable, or as good: where the next batch goes
	zeroed  int64 // the file holds zeros from the seal's end to here
	buf     []byte
	pending int64 // tail after the batch in buf
}

// Room written ahead: with it a sync has only data to flush, no new block
// numbers and no new length, which is several times faster.
const (
	minRoom = 64 << 10
	maxRoom = 256 << 10
)

// NewLog continues a file after a scan of it.
func NewLog(f vfs.File, res Result, size int64) *Log {
	return &Log{File: f, Salt: res.Salt, tail: res.Tail, zeroed: size, pending: res.Tail}
}

// Tail is where the next batch goes.
func (l *Log) Tail() int64 { return l.tail }

// Add puts a record into the batch.
func (l *Log) Add(id uint64, payload []byte) {
	l.buf = AppendRecord(l.buf, l.Salt, l.pending, KindPatch, id, l.tail, payload)
	l.pending = l.tail + int64(len(l.buf))
}

// Write writes the batch to the file, without making it durable. On error the
// file may hold a part of it behind Tail.
func (l *Log) Write() error {
	n := len(l.buf)
	end := l.pending + FrameSize
	if end > l.zeroed {
		end = l.roomBehind(end)
		l.buf = append(l.buf, make([]byte, end-l.tail-int64(n))...)
		if _, err := l.File.WriteAt(l.buf, l.tail); err == nil {
			l.zeroed = end
			return nil
		}
		// A full disk may still hold the records alone.
		if err := l.File.Truncate(l.tail); err != nil {
			return err
		}
		l.zeroed = l.tail
		l.buf = l.buf[:n]
	}
	_, err := l.File.WriteAt(l.buf, l.tail)
	l.zeroed = max(l.zeroed, l.pending)
	return err
}

// roomBehind is up to where the file is to be written ahead if records end at an
// offset.
func (l *Log) roomBehind(end int64) int64 {
	return (end + min(max(l.tail/2, minRoom), maxRoom)) &^ 4095
}

// Reserve writes room ahead of the next batch now, as far as the disk has it, and
// makes it durable.
func (l *Log) Reserve() error {
	end := l.roomBehind(l.tail + FrameSize)
	if from := max(l.zeroed, l.tail+FrameSize); from < end {
		if _, err := l.File.WriteAt(make([]byte, end-from), from); err == nil {
			l.zeroed = end
		} else if err := l.File.Truncate(from); err != nil {
			return err
		}
	}
	return l.File.Sync()
}

// Commit ends the batch, which the caller has made durable, and writes the
// seal behind it.
func (l *Log) Commit() error {
	l.tail = l.pending
	l.reset()
	return l.Seal()
}

// Drop forgets the batch and cuts what it may have left in the file.
func (l *Log) Drop() error {
	l.pending = l.tail
	l.reset()
	l.zeroed = l.tail
	return errors.Join(l.File.Truncate(l.tail), l.File.Sync())
}

func (l *Log) reset() {
	if cap(l.buf) > 4*maxRoom {
		l.buf = nil
	}
	l.buf = l.buf[:0]
}

// Seal writes the seal at the tail.
func (l *Log) Seal() error {
	_, err := l.File.WriteAt(AppendRecord(nil, l.Salt, l.tail, KindSeal, math.MaxUint64, l.tail, nil), l.tail)
	l.zeroed = max(l.zeroed, l.tail+FrameSize)
	return err
}

// Trim seals the file, cuts the room behind the seal and makes it durable.
func (l *Log) Trim() error {
	if err := l.Seal(); err != nil {
		return err
	}
	if err := l.File.Truncate(l.tail + FrameSize); err != nil {
		return err
	}
	l.zeroed = l.tail + FrameSize
	return l.File.Sync()
}

// Cut removes a torn tail for good, before anything is written in its place:
// otherwise a piece of it could be taken for the record after a new one.
func (l *Log) Cut() error {
	if err := l.Drop(); err != nil {
		return err
	}
	return l.Seal()
}

// A snapshot is written beside the updates of a file that it is to replace,
// whose syncs share the disk with it: in pieces so small that a sync does not
// wait long behind one, each brought to the disk at once, without what makes it
// durable. That (a commit of the file system's journal and a flush of the disk's
// cache) comes after so many bytes that it is rare, and yet has little to do.
const (
	pieceSize = 64 << 10
	syncEvery = 1 << 20
)

// NewFile writes header and snapshot to an empty file and makes it durable up
// to there. body is given a function that takes the snapshot's JSON in pieces.
// After each piece of the file rest is called, with the time that it took.
func NewFile(f vfs.File, salt, id uint64, rest func(time.Duration) error, body func(add func([]byte) error) error) (*Log, error) {
	if err := f.Truncate(0); err != nil {
		return nil, err
	}
	w := snapshotWriter{f: f, rest: rest, buf: AppendHeader(make([]byte, 0, pieceSize), salt)}
	w.buf = append(w.buf, make([]byte, FrameSize)...)
	if err := body(w.add); err != nil {
		return nil, err
	}
	length := w.length
	if length > MaxPayload {
		return nil, errors.New("snapshot too long")
	}
	if err := w.add(make([]byte, padded(length)-length)); err != nil {
		return nil, err
	}
	if err := w.flush(); err != nil {
		return nil, err
	}
	l := &Log{File: f, Salt: salt, tail: w.at, pending: w.at, zeroed: w.at}
	frame := make([]byte, FrameSize)
	PutFrame(frame, salt, HeaderSize, KindSnapshot, id, 0, int(length), w.sum)
	if _, err := f.WriteAt(frame, HeaderSize); err != nil {
		return nil, err
	}
	if err := l.Seal(); err != nil {
		return nil, err
	}
	return l, f.Sync()
}

type snapshotWriter struct {
	f      vfs.File
	rest   func(time.Duration) error
	buf    []byte
	at     int64 // offset of buf in the file
	dirty  int64 // bytes since the last sync
	length int64
	sum    uint32
}

func (w *snapshotWriter) add(b []byte) error {
	w.sum = Sum(w.sum, b)
	w.length += int64(len(b))
	for len(b) > 0 {
		n := min(len(b), pieceSize-len(w.buf))
		w.buf = append(w.buf, b[:n]...)
		if b = b[n:]; len(w.buf) == pieceSize {
			if err := w.flush(); err != nil {
				return err
			}
		}
	}
	return nil
}

func (w *snapshotWriter) flush() error {
	start := time.Now()
	n := int64(len(w.buf))
	if _, err := w.f.WriteAt(w.buf, w.at); err != nil {
		return err
	}
	if err := w.f.Writeback(w.at, n); err != nil {
		return err
	}
	w.at += n
	w.buf = w.buf[:0]
	if w.dirty += n; w.dirty >= syncEvery {
		w.dirty = 0
		if err := w.f.Sync(); err != nil {
			return err
		}
	}
	if w.rest == nil {
		return nil
	}
	return w.rest(time.Since(start))
}
