package s9pk

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

type manifestDecoder struct{ errs []error }

func (d *manifestDecoder) err() error {
	if len(d.errs) == 1 {
		return d.errs[0]
	}
	return errors.Join(d.errs...)
}

func (d *manifestDecoder) fail(path, format string, args ...any) {
	d.errs = append(d.errs, &FieldError{path, fmt.Sprintf(format, args...)})
}

func kindOf(v jsonValue) string {
	switch v.(type) {
	case nil:
		return "null"
	case bool:
		return "a boolean"
	case json.Number:
		return "a number"
	case string:
		return "a string"
	case []jsonValue:
		return "a list"
	}
	return "an object"
}

// fields is an object with known keys.
type fields struct {
	d    *manifestDecoder
	path string
	o    *jsonObject
}

func (d *manifestDecoder) object(path string, v jsonValue, known ...string) *fields {
	o, ok := v.(*jsonObject)
	if !ok {
		d.fail(path, "is %s, need an object", kindOf(v))
		return nil
	}
	for i, k := range o.keys {
		if slices.Contains(known, k) && slices.Contains(o.keys[:i], k) {
			d.fail(join(path, k), "is there twice")
		}
	}
	return &fields{d, path, o}
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// with reads a field that must be there.
func (f *fields) with(key string, read func(path string, v jsonValue)) {
	v, ok := f.o.get(key)
	if !ok {
		f.d.fail(join(f.path, key), "is missing")
		return
	}
	read(join(f.path, key), v)
}

// maybe reads a field that may be absent, but not null.
func (f *fields) maybe(key string, read func(path string, v jsonValue)) {
	if v, ok := f.o.get(key); ok {
		read(join(f.path, key), v)
	}
}

// nullable reads a field that may be absent or null.
func (f *fields) nullable(key string, read func(path string, v jsonValue)) {
	if v, ok := f.o.get(key); ok && v != nil {
		read(join(f.path, key), v)
	}
}

func (d *manifestDecoder) str(path string, v jsonValue) string {
	s, ok := v.(string)
	if !ok {
		d.fail(path, "is %s, need a string", kindOf(v))
	}
	return s
}

func (d *manifestDecoder) into(p *string) func(string, jsonValue) {
	return func(path string, v jsonValue) { *p = d.str(path, v) }
}

func (d *manifestDecoder) intoPtr(p **string) func(string, jsonValue) {
	return func(path string, v jsonValue) { s := d.str(path, v); *p = &s }
}

func (d *manifestDecoder) flag(p *bool) func(string, jsonValue) {
	return func(path string, v jsonValue) {
		b, ok := v.(bool)
		if !ok {
			d.fail(path, "is %s, need a boolean", kindOf(v))
		}
		*p = b
	}
}

// set reads a list of strings as a set: sorted, each once, never nil.
func (d *manifestDecoder) set(p *[]string, check func(path, s string)) func(string, jsonValue) {
	return func(path string, v jsonValue) {
		list, ok := v.([]jsonValue)
		if !ok {
			d.fail(path, "is %s, need a list", kindOf(v))
			return
		}
		out := make([]string, 0, len(list))
		for i, item := range list {
			at := join(path, strconv.Itoa(i))
			s := d.str(at, item)
			if _, isString := item.(string); isString && check != nil {
				check(at, s)
			}
			out = append(out, s)
		}
		slices.Sort(out)
		*p = slices.Compact(out)
	}
}

func (d *manifestDecoder) url(p *string) func(string, jsonValue) {
	return func(path string, v jsonValue) {
		s, ok := v.(string)
		if !ok {
			d.str(path, v)
			return
		}
		u, err := NormalizeURL(s)
		if err != nil {
			d.fail(path, "%.100q is no URL: %v", s, err)
		}
		*p = u
	}
}

func (d *manifestDecoder) urlPtr(p **string) func(string, jsonValue) {
	return func(path string, v jsonValue) { *p = new(string); d.url(*p)(path, v) }
}

func (d *manifestDecoder) locale(path string, v jsonValue) LocaleString {
	switch v := v.(type) {
	case string:
		return Text(v)
	case *jsonObject:
		l := LocaleString{Localized: make([]LocaleText, 0, len(v.keys))}
		for i, k := range v.keys {
			text := LocaleText{k, d.str(join(path, k), v.values[i])}
			if at := slices.IndexFunc(l.Localized, func(t LocaleText) bool { return t.Locale == k }); at >= 0 {
				l.Localized[at] = text
				continue
			}
			l.Localized = append(l.Localized, text)
		}
		return l
	}
	d.fail(path, "is %s, need a string or a map of languages to strings", kindOf(v))
	return LocaleString{}
}

func (d *manifestDecoder) intoLocale(p *LocaleString) func(string, jsonValue) {
	return func(path string, v jsonValue) { *p = d.locale(path, v) }
}

// parsed reads a string with its own syntax.
func parsed[T any](d *manifestDecoder, p *T, parse func(string) (T, error)) func(string, jsonValue) {
	return func(path string, v jsonValue) {
		s, ok := v.(string)
		if !ok {
			d.str(path, v)
			return
		}
		t, err := parse(s)
		if err != nil {
			d.fail(path, "%s", strings.TrimPrefix(err.Error(), "exver: "))
		}
		*p = t
	}
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
