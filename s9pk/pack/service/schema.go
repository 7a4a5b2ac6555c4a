package service

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"
	"golang.org/x/text/language"
	"golang.org/x/text/message"
)

// Schema is the JSON Schema (draft 2020-12) of service.yaml.
//
//go:embed schema.json
var Schema []byte

// shape is the schema made ready.
type shape struct {
	compiled *jsonschema.Schema
	document any
	titles   map[string]string // of patterns
}

var schema = sync.OnceValue(func() *shape {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(Schema))
	if err != nil {
		panic(err) // a test compiles it
	}
	const name = "service.json"
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource(name, doc); err != nil {
		panic(err)
	}
	s := &shape{compiled: c.MustCompile(name), document: doc, titles: map[string]string{}}
	s.collect(doc)
	return s
})

// collect finds the titles of patterns, which say them in words.
func (s *shape) collect(v any) {
	switch v := v.(type) {
	case map[string]any:
		if pattern, ok := v["pattern"].(string); ok {
			if title, ok := v["title"].(string); ok {
				s.titles[pattern] = title
			}
		}
		for _, inner := range v {
			s.collect(inner)
		}
	case []any:
		for _, inner := range v {
			s.collect(inner)
		}
	}
}

// breach is what a schema finds.
type breach struct {
	path   []string
	reason string
}

// check lists what the schema has against a value.
func (s *shape) check(v any) []breach {
	err := s.compiled.Validate(v)
	if err == nil {
		return nil
	}
	ve, ok := err.(*jsonschema.ValidationError)
	if !ok {
		return []breach{{nil, err.Error()}}
	}
	var list []breach
	s.leaves(ve, &list)
	return list
}

func (s *shape) leaves(e *jsonschema.ValidationError, to *[]breach) {
	add := func(path []string, format string, args ...any) {
		*to = append(*to, breach{slices.Clone(path), fmt.Sprintf(format, args...)})
	}
	at := e.InstanceLocation
	switch k := e.ErrorKind.(type) {
	case *kind.AdditionalProperties:
		for _, p := range k.Properties {
			add(append(slices.Clone(at), p), "%s", s.keys(e.SchemaURL))
		}
	case *kind.Required:
		add(at, "missing: %s", strings.Join(k.Missing, ", "))
	case *kind.DependentRequired:
		add(at, "%s also needs %s", k.Prop, strings.Join(k.Missing, ", "))
	case *kind.Type:
		add(at, "is %s, must be %s", article(k.Got), article(strings.Join(k.Want, " or ")))
	case *kind.Enum:
		var may []string
		for _, w := range k.Want {
			may = append(may, fmt.Sprint(w))
		}
		add(at, "is %v, must be one of %s", k.Got, strings.Join(may, ", "))
	case *kind.Pattern:
		add(at, "%q must be %s", k.Got, s.words(k.Want))
	case *kind.Maximum:
		add(at, "is more than %s", k.Want.RatString())
	case *kind.Minimum:
		add(at, "is less than %s", k.Want.RatString())
	case *kind.MinLength, *kind.MinItems, *kind.MinProperties:
		add(at, "empty, or too short")
	default:
		if len(e.Causes) == 0 {
			add(at, "%s", e.ErrorKind.LocalizedString(message.NewPrinter(language.English)))
			return
		}
		for _, c := range e.Causes {
			s.leaves(c, to)
		}
	}
}

func (s *shape) words(pattern string) string {
	if title := s.titles[pattern]; title != "" {
		return title
	}
	return "of the form " + pattern
}

func article(kind string) string {
	switch kind {
	case "string":
		return "a text"
	case "object":
		return "a mapping"
	case "array":
		return "a list"
	case "null":
		return "nothing"
	case "boolean":
		return "true or false"
	case "number", "integer":
		return "a number"
	}
	return strings.NewReplacer("string", "a text", "object", "a mapping", "array", "a list", "boolean", "true or false", "number", "a number").Replace(kind)
}

// keys says what may stand in a mapping, whose schema is at a place, and does not.
func (s *shape) keys(url string) string {
	_, fragment, _ := strings.Cut(url, "#")
	v := s.document
	for _, token := range strings.Split(fragment, "/") {
		token = strings.NewReplacer("~1", "/", "~0", "~").Replace(token)
		switch inner := v.(type) {
		case map[string]any:
			if token != "" {
				v = inner[token]
			}
		case []any:
			if i, err := strconv.Atoi(token); err == nil && i < len(inner) {
				v = inner[i]
			}
		}
	}
	m, _ := v.(map[string]any)
	if patterns, ok := m["patternProperties"].(map[string]any); ok {
		for pattern := range patterns {
			return "not a name that may stand here: must be " + s.words(pattern)
		}
	}
	props, _ := m["properties"].(map[string]any)
	return "unknown key; here may stand " + strings.Join(slices.Sorted(maps.Keys(props)), ", ")
}

// Ordered is a mapping in the order of the file.
type Ordered[T any] []Entry[T]

// Entry is one of its members.
type Entry[T any] struct {
	ID    string
	Value T
}

// UnmarshalJSON reads an object.
func (o *Ordered[T]) UnmarshalJSON(text []byte) error {
	dec := json.NewDecoder(bytes.NewReader(text))
	if _, err := dec.Token(); err != nil {
		return err
	}
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return err
		}
		e := Entry[T]{}
		e.ID, _ = key.(string)
		if err := dec.Decode(&e.Value); err != nil {
			return err
		}
		*o = append(*o, e)
	}
	return nil
}

// MarshalJSON writes an object, its members in order.
func (o Ordered[T]) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, e := range o {
		if i > 0 {
			b.WriteByte(',')
		}
		value, err := json.Marshal(e.Value)
		if err != nil {
			return nil, err
		}
		quote(&b, e.ID)
		b.WriteByte(':')
		b.Write(value)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// Get finds a member.
func (o Ordered[T]) Get(id string) (value T, ok bool) {
	for _, e := range o {
		if e.ID == id {
			return e.Value, true
		}
	}
	return value, false
}

// IDs are the keys.
func (o Ordered[T]) IDs() []string {
	list := make([]string, len(o))
	for i, e := range o {
		list[i] = e.ID
	}
	return list
}
