package exver

import (
	"strings"
)

// ExtendedVersion is the version of a package. Versions of different flavors do
// not compare. An empty flavor that is Flavored ("#:1:0") is a flavor of its own.
type ExtendedVersion struct {
	Flavor     string
	Flavored   bool
	Upstream   Version
	Downstream Version
}

// ParseExtended reads [#flavor:]upstream:downstream; both parts are needed.
func ParseExtended(s string) (ExtendedVersion, error) {
	v, rest, err := parseFlavor(s)
	if err != nil {
		return ExtendedVersion{}, err
	}
	up, down, ok := strings.Cut(rest, ":")
	if !ok {
		return ExtendedVersion{}, syntax("version", s, "downstream version is missing")
	}
	var reason string
	if v.Upstream, reason = parseVersion(up); reason != "" {
		return ExtendedVersion{}, syntax("version", s, reason)
	}
	if v.Downstream, reason = parseVersion(down); reason != "" {
		return ExtendedVersion{}, syntax("version", s, reason)
	}
	return v, nil
}

func parseFlavor(s string) (v ExtendedVersion, rest string, err error) {
	rest, ok := strings.CutPrefix(s, "#")
	if !ok {
		return v, s, nil
	}
	flavor, rest, ok := strings.Cut(rest, ":")
	if !ok {
		return v, "", syntax("version", s, "no colon after the flavor")
	}
	for i := 0; i < len(flavor); i++ {
		if flavor[i] < 'a' || flavor[i] > 'z' {
			return v, "", syntax("version", s, "flavor has a character other than a to z")
		}
	}
	v.Flavor, v.Flavored = flavor, true
	return v, rest, nil
}

// MustParseExtended is ParseExtended for constants; it panics on an error.
func MustParseExtended(s string) ExtendedVersion {
	v, err := ParseExtended(s)
	if err != nil {
		panic(err)
	}
	return v
}

// SameFlavor says whether two versions can be compared.
func (v ExtendedVersion) SameFlavor(o ExtendedVersion) bool {
	return v.Flavored == o.Flavored && v.Flavor == o.Flavor
}

// Compare orders versions of one flavor; ok is false for different flavors.
func (v ExtendedVersion) Compare(o ExtendedVersion) (c int, ok bool) {
	if !v.SameFlavor(o) {
		return 0, false
	}
	if c := v.Upstream.Compare(o.Upstream); c != 0 {
		return c, true
	}
	return v.Downstream.Compare(o.Downstream), true
}

// Equal compares by value: 1.0:0 equals 1:0.
func (v ExtendedVersion) Equal(o ExtendedVersion) bool {
	c, ok := v.Compare(o)
	return ok && c == 0
}

// CompareTotal orders all versions: by value within a flavor, flavors by name,
// and unflavored ones last.
func (v ExtendedVersion) CompareTotal(o ExtendedVersion) int {
	if c, ok := v.Compare(o); ok {
		return c
	}
	switch {
	case !v.Flavored:
		return 1
	case !o.Flavored:
		return -1
	}
	return strings.Compare(v.Flavor, o.Flavor)
}

// String prints the version, always with its downstream part.
func (v ExtendedVersion) String() string {
	s := v.Upstream.String() + ":" + v.Downstream.String()
	if v.Flavored {
		return "#" + v.Flavor + ":" + s
	}
	return s
}

// MarshalText prints the version.
func (v ExtendedVersion) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// UnmarshalText is ParseExtended.
func (v *ExtendedVersion) UnmarshalText(text []byte) (err error) {
	*v, err = ParseExtended(string(text))
	return err
}

// Satisfies is r.Satisfies(v).
func (v ExtendedVersion) Satisfies(r Range) bool { return r.Satisfies(v) }
