package s9pk

import (
	"slices"
	"strings"
)

// LocaleString is text for people: one string, or one for each of several
// locales in the order of the document, which decides what stands in for a
// locale that is not there.
type LocaleString struct {
	Plain     string       // where Localized is nil
	Localized []LocaleText // not nil for a map, even an empty one
}

// LocaleText is the text for one locale, such as "en_US".
type LocaleText struct {
	Locale, Text string
}

// Text makes a LocaleString that is the same for everyone.
func Text(s string) LocaleString { return LocaleString{Plain: s} }

// For chooses the text for a locale: its own; else the first of the same
// language; else the first; else nothing.
func (l LocaleString) For(locale string) string {
	if l.Localized == nil {
		return l.Plain
	}
	for _, t := range l.Localized {
		if t.Locale == locale {
			return t.Text
		}
	}
	prefix := locale
	if i := strings.IndexByte(locale, '_'); i >= 0 {
		prefix = locale[:i+1]
	}
	for _, t := range l.Localized {
		if strings.HasPrefix(t.Locale, prefix) {
			return t.Text
		}
	}
	if len(l.Localized) > 0 {
		return l.Localized[0].Text
	}
	return ""
}

// Equal compares regardless of the order of locales.
func (l LocaleString) Equal(o LocaleString) bool {
	if (l.Localized == nil) != (o.Localized == nil) || len(l.Localized) != len(o.Localized) {
		return false
	}
	for _, t := range l.Localized {
		if !slices.Contains(o.Localized, t) {
			return false
		}
	}
	return l.Plain == o.Plain
}

func (l LocaleString) write(w *jsonWriter) {
	if l.Localized == nil {
		w.str(l.Plain)
		return
	}
	w.open('{')
	for _, t := range l.Localized {
		w.key(t.Locale)
		w.str(t.Text)
	}
	w.close('}')
}

// MarshalJSON writes a string or a map in its order.
func (l LocaleString) MarshalJSON() ([]byte, error) {
	w := &jsonWriter{}
	l.write(w)
	return w.b, nil
}

// UnmarshalJSON reads a string or a map of strings.
func (l *LocaleString) UnmarshalJSON(b []byte) error {
	v, err := parseJSON(b)
	if err != nil {
		return err
	}
	d := &manifestDecoder{}
	*l = d.locale("text", v)
	return d.err()
}
