package rpc

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"unicode/utf16"
	"unicode/utf8"
)

// readLine reads up to the next newline, at most limit bytes. At the end of
// the input what was read so far counts as a line. When not nil, grow is
// called once as soon as the line is longer than smallLine; its error ends
// the reading.
func readLine(r *bufio.Reader, limit int, grow func() error) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		total := len(line) + len(part)
		if total > limit {
			return nil, ErrTooLong
		}
		if total > smallLine && grow != nil {
			if err := grow(); err != nil {
				return nil, err
			}
			grow = nil
		}
		line = append(line, part...)
		switch {
		case err == nil, errors.Is(err, io.EOF) && total > 0:
			return bytes.TrimRight(line, "\r\n"), nil
		case !errors.Is(err, bufio.ErrBufferFull):
			return nil, err
		}
	}
}

// escape rewrites JSON text to pure ASCII: runtimes decode each socket chunk
// on its own and break characters that two chunks share.
func escape(text []byte) []byte {
	i := 0
	for i < len(text) && text[i] < utf8.RuneSelf {
		i++
	}
	if i == len(text) {
		return text
	}
	const hex = "0123456789abcdef"
	out := append(make([]byte, 0, len(text)*2), text[:i]...)
	unit := func(u rune) {
		out = append(out, '\\', 'u', hex[u>>12&15], hex[u>>8&15], hex[u>>4&15], hex[u&15])
	}
	for i < len(text) {
		r, n := utf8.DecodeRune(text[i:])
		switch {
		case r < utf8.RuneSelf:
			out = append(out, byte(r))
		case r > 0xffff:
			hi, lo := utf16.EncodeRune(r)
			unit(hi)
			unit(lo)
		default:
			unit(r)
		}
		i += n
	}
	return out
}
