package s9pk

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// The manifest is read and written here by hand, because what counts is what
// StartOS (serde_json) does: keys match exactly, a key twice is an error, null
// is not absence, the order of maps is kept, and nothing is escaped that does
// not have to be. encoding/json differs in each of these.

// jsonValue is a parsed value: nil, bool, json.Number, string, []jsonValue or *jsonObject.
type jsonValue any

type jsonObject struct {
	keys   []string
	values []jsonValue
}

func (o *jsonObject) get(key string) (jsonValue, bool) {
	i := slices.Index(o.keys, key)
	if i < 0 {
		return nil, false
	}
	return o.values[i], true
}

// maxJSONDepth is where serde_json stops.
const maxJSONDepth = 127

func parseJSON(b []byte) (jsonValue, error) {
	if !utf8.Valid(b) {
		return nil, errors.New("is not UTF-8")
	}
	if err := checkSurrogates(b); err != nil {
		return nil, err
	}
	d := json.NewDecoder(strings.NewReader(string(b)))
	d.UseNumber()
	v, err := readJSON(d, 0)
	if err != nil {
		return nil, fmt.Errorf("is not JSON: %w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("has more after its first JSON value")
	}
	return v, nil
}

func readJSON(d *json.Decoder, depth int) (jsonValue, error) {
	if depth > maxJSONDepth {
		return nil, errors.New("nested too deeply")
	}
	tok, err := d.Token()
	if err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	switch tok {
	case json.Delim('['):
		list := []jsonValue{}
		for d.More() {
			v, err := readJSON(d, depth+1)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		_, err := d.Token()
		return list, err
	case json.Delim('{'):
		o := &jsonObject{}
		for d.More() {
			key, err := d.Token()
			if err != nil {
				return nil, err
			}
			v, err := readJSON(d, depth+1)
			if err != nil {
				return nil, err
			}
			o.keys = append(o.keys, key.(string))
			o.values = append(o.values, v)
		}
		_, err := d.Token()
		return o, err
	}
	return tok, nil
}

// checkSurrogates refuses escapes of half a character, which encoding/json
// replaces instead.
func checkSurrogates(b []byte) error {
	unit := func(i int) (uint64, bool) {
		if i+6 > len(b) || b[i] != '\\' || b[i+1] != 'u' {
			return 0, false
		}
		u, err := strconv.ParseUint(string(b[i+2:i+6]), 16, 32)
		return u, err == nil
	}
	for i := 0; i < len(b); i++ {
		if b[i] != '\\' {
			continue
		}
		u, ok := unit(i)
		switch {
		case !ok:
			i++ // skips an escaped backslash
		case u >= 0xdc00 && u < 0xe000:
			return errors.New("is not JSON: escape of half a character")
		case u >= 0xd800 && u < 0xdc00:
			if low, ok := unit(i + 6); !ok || low < 0xdc00 || low >= 0xe000 {
				return errors.New("is not JSON: escape of half a character")
			}
			i += 11
		default:
			i += 5
		}
	}
	return nil
}

// appendString writes a JSON string as serde_json does.
func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c >= ' ':
			b = append(b, c)
		case c == '\b':
			b = append(b, `\b`...)
		case c == '\f':
			b = append(b, `\f`...)
		case c == '\n':
			b = append(b, `\n`...)
		case c == '\r':
			b = append(b, `\r`...)
		case c == '\t':
			b = append(b, `\t`...)
		default:
			b = fmt.Appendf(b, `\u%04x`, c)
		}
	}
	return append(b, '"')
}

// jsonWriter builds compact JSON.
type jsonWriter struct {
	b     []byte
	first bool
}

func (w *jsonWriter) sep() {
	if !w.first {
		w.b = append(w.b, ',')
	}
	w.first = false
}

func (w *jsonWriter) open(c byte)  { w.b = append(w.b, c); w.first = true }
func (w *jsonWriter) close(c byte) { w.b = append(w.b, c); w.first = false }

func (w *jsonWriter) key(k string) {
	w.sep()
	w.b = appendString(w.b, k)
	w.b = append(w.b, ':')
}

func (w *jsonWriter) str(s string) { w.b = appendString(w.b, s) }

func (w *jsonWriter) optional(s *string) {
	if s == nil {
		w.b = append(w.b, "null"...)
		return
	}
	w.str(*s)
}

func (w *jsonWriter) boolean(v bool) { w.b = strconv.AppendBool(w.b, v) }

func (w *jsonWriter) list(items []string) {
	w.open('[')
	for _, s := range items {
		w.sep()
		w.str(s)
	}
	w.close(']')
}
