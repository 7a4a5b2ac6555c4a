package lxcrt

import "slices"

// extent maps size ids from from (on disk) to to (on the host).
type extent struct{ from, to, size uint32 }

// plainMap is a container's own map.
func plainMap(ids IDRange) []extent {
	return []extent{{0, ids.Base, ids.count()}}
}

// composeMap lays the entries of Mount.Compose under the container's map: each
// id on disk passes through the entries in order, then into the range. Targets
// are unique: a moved id wins over an untouched one, and among moved ones the
// lowest; losers stay unmapped.
func composeMap(ids IDRange, entries []IDMapEntry) []extent {
	if len(entries) == 0 {
		return plainMap(ids)
	}
	// Cutting the range where any entry can begin or end, before and after each
	// step, leaves pieces that move as a whole; so the work grows with the number
	// of entries, not of ids.
	count := ids.count()
	cuts := []uint64{0, uint64(count)}
	for i := len(entries) - 1; i >= 0; i-- {
		e := entries[i]
		ends := []uint64{uint64(e.From), uint64(e.From) + uint64(e.Range)}
		for _, c := range cuts { // the places after this step, as places before it
			ends = append(ends, c)
			if c >= uint64(e.To) && c <= uint64(e.To)+uint64(e.Range) {
				ends = append(ends, c-uint64(e.To)+uint64(e.From))
			}
		}
		slices.Sort(ends)
		cuts = slices.Compact(ends)
	}
	type piece struct {
		from, to, size uint32
		moved          bool
	}
	var pieces []piece
	for i := 0; i+1 < len(cuts) && cuts[i] < uint64(count); i++ {
		from, end := cuts[i], min(cuts[i+1], uint64(count))
		to, moved := from, false
		for _, e := range entries {
			if to >= uint64(e.From) && to < uint64(e.From)+uint64(e.Range) {
				to, moved = to-uint64(e.From)+uint64(e.To), true
			}
		}
		if to >= uint64(count) {
			continue // outside of the container: nobody
		}
		size := min(end-from, uint64(count)-to)
		pieces = append(pieces, piece{uint32(from), uint32(to), uint32(size), moved})
	}
	// Winners first; each loser keeps what is still free of its target.
	slices.SortStableFunc(pieces, func(a, b piece) int {
		if a.moved != b.moved {
			if a.moved {
				return -1
			}
			return 1
		}
		return int(int64(a.from) - int64(b.from))
	})
	var taken, out []extent
	for _, p := range pieces {
		for _, free := range subtract(extent{p.from, p.to, p.size}, taken) {
			out = append(out, free)
			taken = append(taken, free)
		}
	}
	slices.SortFunc(out, func(a, b extent) int { return int(int64(a.from) - int64(b.from)) })
	merged := out[:0]
	for _, e := range out {
		if n := len(merged); n > 0 && merged[n-1].from+merged[n-1].size == e.from && merged[n-1].to+merged[n-1].size == e.to {
			merged[n-1].size += e.size
			continue
		}
		merged = append(merged, e)
	}
	for i := range merged {
		merged[i].to += ids.Base
	}
	return merged
}

// subtract returns what of e's targets none of taken holds.
func subtract(e extent, taken []extent) []extent {
	left := []extent{e}
	for _, t := range taken {
		var next []extent
		for _, l := range left {
			lo, hi := max(uint64(l.to), uint64(t.to)), min(uint64(l.to)+uint64(l.size), uint64(t.to)+uint64(t.size))
			if lo >= hi {
				next = append(next, l)
				continue
			}
			if d := uint32(lo - uint64(l.to)); d > 0 {
				next = append(next, extent{l.from, l.to, d})
			}
			if d := uint32(hi - uint64(l.to)); d < l.size {
				next = append(next, extent{l.from + d, l.to + d, l.size - d})
			}
		}
		left = next
	}
	return left
}
