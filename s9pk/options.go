package s9pk

import (
	"io"

	"github.com/selfstead/selfstead/s9pk/merkle"
)

// Options tunes Open and NewStreamVerifier. The zero value suits production.
type Options struct {
	// Commitment, where not nil, is the archive that is wanted: another root,
	// or a larger signed root table, is refused. Without one the signed root
	// table may be at most 1 MiB.
	Commitment *merkle.Commitment
	// Lenient opens archives that are refused as ErrUnsafe to look at them. They
	// can be listed, read and verified, but not written again or extracted.
	// Verifying one whose bodies overlap takes as long as they are together.
	Lenient bool
	Limits  Limits

	// Package demands that the archive is a package: manifest.json must be
	// there and readable. A StreamVerifier then says so as soon as it shows.
	Package bool
	// Size is the announced length of a stream, 0 when unknown; positions
	// beyond it are refused at once.
	Size int64
	// Received gives a StreamVerifier back what it was given, for archives
	// that need a second look: a file that the caller writes before each Write.
	Received io.ReaderAt
	// Outboard proves parts of bodies without reading all of them. Nothing is
	// taken on its word: a body for which it has no proof, or one that does not
	// fit or cannot be read, is hashed whole, as if there were no outboard.
	// Outboard.Proof says why.
	Outboard *Outboard
}

// Limits bounds what is held in memory or worked on. Zero fields mean the
// defaults.
type Limits struct {
	Entries  int   // in all tables together; 0 means 65,536
	Depth    int   // directories in one another; 0 means 16 (1,024 when lenient)
	Table    int64 // bytes of one table; 0 means 16 MiB
	Tables   int64 // bytes of all tables; 0 means 64 MiB
	Manifest int64 // bytes of manifest.json; 0 means 1 MiB
}

func (o Options) limits() Limits {
	l := o.Limits
	def := func(v *int64, d int64) {
		if *v == 0 {
			*v = d
		}
	}
	if l.Entries == 0 {
		l.Entries = 1 << 16
	}
	if l.Depth == 0 {
		l.Depth = 16
		if o.Lenient {
			l.Depth = 1024
		}
	}
	def(&l.Table, 16<<20)
	def(&l.Tables, 64<<20)
	def(&l.Manifest, 1<<20)
	return l
}
