package server

import (
	"encoding/json"
	"io"

	"github.com/danielgtaylor/huma/v2"
)

// jsonFormat is JSON whose integers may be written as 5.0: to JSON Schema that
// is the integer 5, to encoding/json it is none.
var jsonFormat = huma.Format{
	Marshal: func(w io.Writer, v any) error { return huma.DefaultJSONFormat.Marshal(w, v) },
	Unmarshal: func(data []byte, v any) error {
		return json.Unmarshal(integral(data), v)
	},
}

// integral leaves out the fractions of numbers where they are zero. What is no
// JSON stays none.
func integral(data []byte) []byte {
	var out []byte // nil while nothing was left out
	kept := 0      // data before it is in out
	digit := func(i int) bool { return i < len(data) && data[i] >= '0' && data[i] <= '9' }
	for i := 0; i < len(data); i++ {
		switch {
		case data[i] == '"':
			for i++; i < len(data) && data[i] != '"'; i++ {
				if data[i] == '\\' {
					i++
				}
			}
		case data[i] == '.' && i > 0 && digit(i-1) && digit(i+1):
			end := i + 1
			for end < len(data) && data[end] == '0' {
				end++
			}
			if !digit(end) && (end >= len(data) || data[end] != 'e' && data[end] != 'E') {
				out = append(out, data[kept:i]...)
				kept = end
			}
			for end < len(data) && digit(end) {
				end++
			}
			i = end - 1
		}
	}
	if out == nil {
		return data
	}
	return append(out, data[kept:]...)
}
