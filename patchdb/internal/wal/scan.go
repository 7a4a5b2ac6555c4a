package wal

import (
	"bufio"
	"fmt"
	"io"
)

// CorruptError says where a file holds something else than was once durable there.
type CorruptError struct {
	Offset int64
	Reason string
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("damage at byte %d: %s", e.Offset, e.Reason)
}

// Result is what a scan found beside the records.
type Result struct {
	Salt    uint64
	Tail    int64 // where the next record goes
	Sealed  bool  // a seal stands at Tail
	Torn    int64 // bytes from Tail to the last one that is not zero, without a seal
	Records int   // patch records
	Moving  bool  // a writer went on meanwhile: there are more records by now

	last uint64 // revision of the last record
}

// Record is one record as Scan hands it out.
type Record struct {
	Frame
	Offset  int64
	Payload []byte    // of a patch; valid until the callback returns
	Text    io.Reader // of a snapshot, which may be long: reads the payload, once more
}

// Scan reads a whole file and hands out its records in order: a snapshot and
// then the patches, with revisions counting up. It returns a CorruptError
// for damage, or fn's error. A file that a writer is at work on is read as it
// was at some moment; see Result.Moving.
func Scan(r io.ReaderAt, size int64, fn func(Record) error) (Result, error) {
	var res Result
	head := make([]byte, HeaderSize)
	n, err := r.ReadAt(head, 0)
	if err != nil && err != io.EOF {
		return res, err
	}
	salt, reason := parseHeader(head[:n])
	if reason != "" {
		return res, &CorruptError{0, reason}
	}
	res.Salt = salt
	if err := res.records(r, HeaderSize, size, fn); err != nil {
		return res, err
	}
	return res, res.rest(r, size)
}

// ScanRange hands out the records from one record boundary to another, all of
// which must be whole.
func ScanRange(r io.ReaderAt, salt uint64, from, to int64, fn func(Record) error) error {
	res := Result{Salt: salt, Records: -1}
	if err := res.records(r, from, to, fn); err != nil {
		return err
	}
	if res.Tail != to {
		return &CorruptError{res.Tail, "unreadable record"}
	}
	return nil
}

// records reads whole records from offset on; it leaves Tail behind the last.
func (res *Result) records(r io.ReaderAt, from, size int64, fn func(Record) error) error {
	ranged := res.Records < 0 // the scan begins between records, not at a snapshot
	first := !ranged
	res.Tail = from
	br := bufio.NewReaderSize(io.NewSectionReader(r, from, size-from), int(min(1<<16, max(size-from, FrameSize))))
	frame := make([]byte, FrameSize)
	var payload []byte
	var last uint64
	for started := false; ; started = true {
		if size-res.Tail < FrameSize {
			break
		}
		if _, err := io.ReadFull(br, frame); err != nil {
			return res.short(err)
		}
		f, ok := parseFrame(frame, res.Salt, res.Tail)
		space := FrameSize + padded(int64(f.Length))
		if !ok || res.Tail+space > size {
			break
		}
		if f.Kind == KindSeal && f.Length == 0 && !first {
			res.Sealed = true
			break
		}
		rec := Record{Frame: f, Offset: res.Tail}
		var sum uint32
		if f.Kind == KindSnapshot {
			s := summed{}
			if _, err := io.CopyN(&s, br, padded(int64(f.Length))); err != nil {
				return res.short(err)
			}
			sum = s.sum
			rec.Text = &summed{r: io.NewSectionReader(r, res.Tail+FrameSize, int64(f.Length)), want: f.sum, at: res.Tail}
		} else {
			if n := int(padded(int64(f.Length))); cap(payload) < n {
				payload = make([]byte, n)
			} else {
				payload = payload[:n]
			}
			if _, err := io.ReadFull(br, payload); err != nil {
				return res.short(err)
			}
			sum = Sum(0, payload)
			rec.Payload = payload[:f.Length]
		}
		if sum != f.sum {
			break
		}
		switch {
		case (f.Kind == KindSnapshot) != first:
			return &CorruptError{res.Tail, "record of a kind that does not belong here"}
		case started && f.ID != last+1:
			return &CorruptError{res.Tail, fmt.Sprintf("revision %d after %d", f.ID, last)}
		}
		last, res.last = f.ID, f.ID
		if err := fn(rec); err != nil {
			return err
		}
		if !first && !ranged {
			res.Records++
		}
		first = false
		res.Tail += space
		if cap(payload) > 1<<20 {
			payload = nil // do not hold it while others are read
		}
	}
	if first {
		return &CorruptError{res.Tail, "the snapshot is unreadable"}
	}
	return nil
}

// summed adds up what passes.
type summed struct {
	r    io.Reader
	n    int64
	sum  uint32
	want uint32 // of a reader
	at   int64  // of the record
}

func (s *summed) Write(b []byte) (int, error) {
	s.n += int64(len(b))
	s.sum = Sum(s.sum, b)
	return len(b), nil
}

// Read makes sure that what is read now is what was summed up before.
func (s *summed) Read(b []byte) (int, error) {
	n, err := s.r.Read(b)
	s.Write(b[:n])
	if err == io.EOF && Sum(s.sum, make([]byte, padded(s.n)-s.n)) != s.want {
		err = &CorruptError{s.at, "the snapshot reads differently the second time"}
	}
	return n, err
}

// short: the file became shorter while it was read.
func (res *Result) short(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return &CorruptError{res.Tail, "the file ends early"}
	}
	return err
}

// rest looks behind the tail: for proof that more was durable once, and for
// bytes that are not zero.
func (res *Result) rest(r io.ReaderAt, size int64) error {
	from := res.Tail
	if res.Sealed {
		from += FrameSize
	}
	buf := make([]byte, min(1<<16, max(size-res.Tail, 2*FrameSize)))
	for off := res.Tail; off < size; off += int64(len(buf)) - FrameSize {
		n, err := r.ReadAt(buf[:min(int64(len(buf)), size-off)], off)
		if err != nil && err != io.EOF {
			return err
		}
		for i := 0; i < n; i++ {
			if buf[i] == 0 {
				continue
			}
			at := off + int64(i)
			if at >= from {
				res.Torn = max(res.Torn, at+1-res.Tail)
			}
			// A record starts at a multiple of 8, with a byte that is not zero.
			if i%8 != 0 || i+FrameSize > n {
				continue
			}
			if f, ok := parseFrame(buf[i:i+FrameSize], res.Salt, at); ok && f.Durable > res.Tail {
				if res.followed(r) {
					res.Moving, res.Sealed, res.Torn = true, false, 0
					return nil
				}
				return &CorruptError{res.Tail, fmt.Sprintf("unreadable, though revision %d was written after it was durable", f.ID)}
			}
		}
		if off+int64(n) >= size {
			break
		}
	}
	return nil
}

// followed reports whether the next record stands at the tail after all. Where
// nothing was readable before, a writer has put it there since: what was read is
// the state of a moment ago. Damage does not heal.
func (res *Result) followed(r io.ReaderAt) bool {
	buf := make([]byte, 1<<16)
	if _, err := r.ReadAt(buf[:FrameSize], res.Tail); err != nil {
		return false
	}
	f, ok := parseFrame(buf, res.Salt, res.Tail)
	if !ok || f.Kind != KindPatch || f.ID != res.last+1 {
		return false
	}
	sum := uint32(0)
	for at, end := res.Tail+FrameSize, res.Tail+FrameSize+padded(int64(f.Length)); at < end; {
		b := buf[:min(int64(len(buf)), end-at)]
		if _, err := r.ReadAt(b, at); err != nil {
			return false
		}
		sum = Sum(sum, b)
		at += int64(len(b))
	}
	return sum == f.sum
}
