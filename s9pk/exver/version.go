package exver

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// ErrSyntax is wrapped by every parse error.
var ErrSyntax = errors.New("exver: invalid syntax")

func syntax(kind, text, reason string) error {
	return fmt.Errorf("%w: %.100q is not a %s: %s", ErrSyntax, text, kind, reason)
}

// Segment is one part of a prerelease: a number, or text.
type Segment struct {
	Text    string // of a text segment
	Number  uint64 // of a numeric one
	Numeric bool
}

// Compare orders numbers before text.
func (s Segment) Compare(o Segment) int {
	switch {
	case s.Numeric && o.Numeric:
		return cmp.Compare(s.Number, o.Number)
	case s.Numeric:
		return -1
	case o.Numeric:
		return 1
	}
	return strings.Compare(s.Text, o.Text)
}

// String is the segment as it is written.
func (s Segment) String() string {
	if s.Numeric {
		return strconv.FormatUint(s.Number, 10)
	}
	return s.Text
}

// Version is one half of an extended version: numbers, most significant first,
// and prerelease segments. The zero value counts as 0.
type Version struct {
	Numbers    []uint64
	Prerelease []Segment
}

// ParseVersion reads n(.n)*[-seg(.seg)*]. Leading zeros and a leading plus are
// accepted in the numbers and not kept.
func ParseVersion(s string) (Version, error) {
	v, reason := parseVersion(s)
	if reason != "" {
		return Version{}, syntax("version", s, reason)
	}
	return v, nil
}

func parseVersion(s string) (v Version, reason string) {
	numbers, pre, hasPre := strings.Cut(s, "-")
	for n := range strings.SplitSeq(numbers, ".") {
		u, err := strconv.ParseUint(strings.TrimPrefix(n, "+"), 10, 64)
		if err != nil {
			return v, "invalid numeric identifier"
		}
		v.Numbers = append(v.Numbers, u)
	}
	if !hasPre {
		return v, ""
	}
	for text := range strings.SplitSeq(pre, ".") {
		seg, reason := parseSegment(text)
		if reason != "" {
			return v, reason
		}
		v.Prerelease = append(v.Prerelease, seg)
	}
	return v, ""
}

func parseSegment(text string) (seg Segment, reason string) {
	if text == "" {
		return seg, "empty prerelease segment"
	}
	digits := true
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch {
		case c >= '0' && c <= '9':
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c == '-':
			digits = false
		default:
			return seg, "prerelease segment has a character other than letters, digits and -"
		}
	}
	if !digits {
		return Segment{Text: text}, ""
	}
	if len(text) > 1 && text[0] == '0' {
		return seg, "numeric prerelease segment has a leading zero"
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return seg, "numeric prerelease segment is too large"
	}
	return Segment{Number: n, Numeric: true}, ""
}

// Compare orders versions: numbers pairwise with missing ones as 0, then a
// release after its prereleases, then prerelease segments in turn.
func (v Version) Compare(o Version) int {
	for i := range max(len(v.Numbers), len(o.Numbers)) {
		if c := cmp.Compare(at(v.Numbers, i), at(o.Numbers, i)); c != 0 {
			return c
		}
	}
	switch {
	case len(v.Prerelease) == 0 && len(o.Prerelease) == 0:
		return 0
	case len(v.Prerelease) == 0:
		return 1
	case len(o.Prerelease) == 0:
		return -1
	}
	return slices.CompareFunc(v.Prerelease, o.Prerelease, Segment.Compare)
}

func at(numbers []uint64, i int) uint64 {
	if i < len(numbers) {
		return numbers[i]
	}
	return 0
}

// String prints the version; numbers keep their count.
func (v Version) String() string {
	var b strings.Builder
	if len(v.Numbers) == 0 {
		b.WriteByte('0')
	}
	for i, n := range v.Numbers {
		if i > 0 {
			b.WriteByte('.')
		}
		b.WriteString(strconv.FormatUint(n, 10))
	}
	for i, s := range v.Prerelease {
		b.WriteByte("-."[min(i, 1)])
		b.WriteString(s.String())
	}
	return b.String()
}

// MarshalText prints the version.
func (v Version) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// UnmarshalText is ParseVersion.
func (v *Version) UnmarshalText(text []byte) (err error) {
	*v, err = ParseVersion(string(text))
	return err
}

// Satisfies takes v as an unflavored version with downstream 0.
func (v Version) Satisfies(r Range) bool { return r.Satisfies(ExtendedVersion{Upstream: v}) }

// significant is the numbers without trailing zeros, at least one.
func (v Version) significant() []uint64 {
	n := v.Numbers
	for len(n) > 1 && n[len(n)-1] == 0 {
		n = n[:len(n)-1]
	}
	if len(n) == 0 {
		return []uint64{0}
	}
	return n
}
