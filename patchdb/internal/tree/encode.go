package tree

import "unicode/utf8"

const hex = "0123456789abcdef"

// Encode returns the value's compact JSON text.
func Encode(n Node) []byte { return Append(make([]byte, 0, n.Size()), n) }

// Append appends the value's compact JSON text. Only what JSON demands is
// escaped; the text is the same for the same node every time.
func Append(b []byte, n Node) []byte {
	switch n := n.(type) {
	case Null:
		return append(b, "null"...)
	case Bool:
		if n {
			return append(b, "true"...)
		}
		return append(b, "false"...)
	case Number:
		return append(b, n...)
	case String:
		return AppendQuoted(b, string(n))
	case *Object:
		b = append(b, '{')
		first := true
		for m := range n.Members() {
			if !first {
				b = append(b, ',')
			}
			first = false
			b = append(AppendQuoted(b, m.Key), ':')
			b = Append(b, m.Val)
		}
		return append(b, '}')
	case *Array:
		b = append(b, '[')
		for i, v := range n.All() {
			if i > 0 {
				b = append(b, ',')
			}
			b = Append(b, v)
		}
		return append(b, ']')
	}
	panic("tree: unknown node") // no input reaches this: Node is closed to this package
}

// Stream hands out the value's compact JSON text in pieces of about the given
// size; a piece is valid until the next.
func Stream(n Node, size int, emit func([]byte) error) error {
	s := stream{size: size, emit: emit}
	if err := s.value(n); err != nil {
		return err
	}
	return emit(s.buf)
}

type stream struct {
	buf  []byte
	size int
	emit func([]byte) error
}

func (s *stream) value(n Node) error {
	if n.Size() <= s.size {
		s.buf = Append(s.buf, n)
		if len(s.buf) < s.size {
			return nil
		}
		b := s.buf
		s.buf = s.buf[:0]
		return s.emit(b)
	}
	switch n := n.(type) {
	case *Object:
		s.buf = append(s.buf, '{')
		first := true
		for m := range n.Members() {
			if !first {
				s.buf = append(s.buf, ',')
			}
			first = false
			s.buf = append(AppendQuoted(s.buf, m.Key), ':')
			if err := s.value(m.Val); err != nil {
				return err
			}
		}
		s.buf = append(s.buf, '}')
	case *Array:
		s.buf = append(s.buf, '[')
		for i, v := range n.All() {
			if i > 0 {
				s.buf = append(s.buf, ',')
			}
			if err := s.value(v); err != nil {
				return err
			}
		}
		s.buf = append(s.buf, ']')
	default:
		s.buf = Append(s.buf, n)
	}
	return nil
}

// AppendQuoted appends s as a JSON string.
func AppendQuoted(b []byte, s string) []byte {
	b = append(b, '"')
	start := 0
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' {
			continue
		}
		b = append(b, s[start:i]...)
		start = i + 1
		switch c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\n':
			b = append(b, '\\', 'n')
		case '\r':
			b = append(b, '\\', 'r')
		case '\t':
			b = append(b, '\\', 't')
		default:
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
	}
	return append(append(b, s[start:]...), '"')
}

func quotedLen(s string) int {
	n := len(s) + 2
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c >= ' ' && c != '"' && c != '\\':
		case c == '"' || c == '\\' || c == '\n' || c == '\r' || c == '\t':
			n++
		default:
			n += 5
		}
	}
	return n
}

// NewString checks that s is text; ok is false where it is not valid UTF-8.
func NewString(s string) (String, bool) { return String(s), utf8.ValidString(s) }
