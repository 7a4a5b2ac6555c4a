package merkle

import "slices"

// Ordered lists the entries as a writer stores them: directories, then files,
// then missing ones; missing ones by name, the others by rank and then by name.
// A nil rank counts as equal for all.
func (d *Directory) Ordered(rank func(name string) int) []*Entry {
	out := slices.Clone(d.byName)
	class := func(e *Entry) int {
		switch e.Kind {
		case KindDirectory:
			return 0
		case KindFile:
			return 1
		}
		return 2
	}
	slices.SortStableFunc(out, func(a, b *Entry) int {
		ca, cb := class(a), class(b)
		if ca != cb || ca == 2 || rank == nil {
			return ca - cb
		}
		return rank(a.Name) - rank(b.Name)
	})
	return out
}
