package patchdb

import (
	"fmt"
	"strings"
)

// Pointer names a place in a document (RFC 6901): "" is the whole document,
// "/a/0" element 0 of member a.
type Pointer string

var (
	escape   = strings.NewReplacer("~", "~0", "/", "~1")
	unescape = strings.NewReplacer("~1", "/", "~0", "~")
)

// Join returns the pointer to what the tokens lead to below base. It escapes
// what RFC 6901 wants escaped.
func Join(base Pointer, tokens ...string) Pointer {
	var b strings.Builder
	b.WriteString(string(base))
	for _, t := range tokens {
		b.WriteByte('/')
		b.WriteString(escapeToken(t))
	}
	return Pointer(b.String())
}

func escapeToken(t string) string {
	if strings.ContainsAny(t, "~/") {
		return escape.Replace(t)
	}
	return t
}

// Tokens returns the unescaped tokens, or an error wrapping ErrInvalid where p
// is not a pointer.
func (p Pointer) Tokens() ([]string, error) {
	if p == "" {
		return nil, nil
	}
	if p[0] != '/' {
		return nil, fmt.Errorf("%w: pointer %q does not begin with /", ErrInvalid, string(p))
	}
	tokens := strings.Split(string(p[1:]), "/")
	for i, t := range tokens {
		k := strings.IndexByte(t, '~')
		if k < 0 {
			continue
		}
		for ; k < len(t); k++ {
			if t[k] == '~' && (k+1 == len(t) || t[k+1] != '0' && t[k+1] != '1') {
				return nil, fmt.Errorf("%w: pointer %q has a ~ that is neither ~0 nor ~1", ErrInvalid, string(p))
			}
		}
		tokens[i] = unescape.Replace(t)
	}
	return tokens, nil
}

func joinTokens(tokens []string) string { return string(Join("", tokens...)) }

// hasPrefix reports whether prefix leads to a place at or above tokens.
func hasPrefix(tokens, prefix []string) bool {
	if len(tokens) < len(prefix) {
		return false
	}
	for i, t := range prefix {
		if tokens[i] != t {
			return false
		}
	}
	return true
}
