package exver

// VersionString is an extended version that keeps the text it was read from.
// Two of them are equal by value, whatever their text.
type VersionString struct {
	ExtendedVersion
	text string
}

// ParseVersionString is ParseExtended and keeps s.
func ParseVersionString(s string) (VersionString, error) {
	v, err := ParseExtended(s)
	if err != nil {
		return VersionString{}, err
	}
	return VersionString{v, s}, nil
}

// String is the text that was read, or the printed version where there is none.
func (v VersionString) String() string {
	if v.text == "" {
		return v.ExtendedVersion.String()
	}
	return v.text
}

// MarshalText is String.
func (v VersionString) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// UnmarshalText is ParseVersionString.
func (v *VersionString) UnmarshalText(text []byte) (err error) {
	*v, err = ParseVersionString(string(text))
	return err
}
