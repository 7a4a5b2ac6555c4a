// Package wire is what the host and the program inside a virtual machine say to
// each other over one byte stream: frames that carry the input and the output
// of several commands at a time.
//
// A machine that is reset stops in the middle of a frame. So the program inside
// starts with more zeros than a frame is long, which fill up the torn one, and
// then says Hello; Reader skips whatever is no frame.
package wire

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"sync"
)

// MaxPayload is the most that a frame carries.
const MaxPayload = 32 << 10

// Kind says what a frame is.
type Kind byte

// Kinds of frames; host to machine first.
const (
	Run    Kind = iota + 1 // JSON of Command: start it under the frame's id
	Put                    // JSON of File: what follows as Input is its content
	Input                  // bytes for the command's standard input; none means its end
	Signal                 // one byte, the number, to the command's process group
	Power                  // "reboot" or "poweroff"

	Hello  // JSON of Greeting: the machine is up
	Output // bytes that the command wrote to its standard output
	Errors // bytes that the command wrote to its standard error
	Exit   // JSON of Status: the command is over, nothing of it follows
)

// Command is what to run.
type Command struct {
	Argv []string `json:"argv"`
	Env  []string `json:"env,omitempty"` // beside PATH, HOME and LANG
	Dir  string   `json:"dir,omitempty"` // empty means /
}

// File is what to write; folders above it are made.
type File struct {
	Path string `json:"path"`
	Mode uint32 `json:"mode"`
}

// Status says how a command ended.
type Status struct {
	Code   int    `json:"code"`             // 128 and the number for a signal
	Signal int    `json:"signal,omitempty"` // that ended it
	Err    string `json:"err,omitempty"`    // it could not be started, or the file not written
}

// Greeting says which machine is up.
type Greeting struct {
	Kernel string `json:"kernel"` // its release
}

// Config is what the first program finds beside itself.
type Config struct {
	Init    string   `json:"init,omitempty"` // what to run as PID 1; empty means the program itself
	Modules []string `json:"modules"`        // in the order to load them
	Shares  []Share  `json:"shares,omitempty"`
}

// Share is a folder of the host.
type Share struct {
	Tag  string `json:"tag"`
	Path string `json:"path"` // where in the machine
}

// Port is the name of the virtio port that the stream goes over.
const Port = "selfstead.vm"

const header = 12

var magic = [3]byte{0xf5, 'V', 'M'}

// Frame is one message; ID tells commands apart.
type Frame struct {
	Kind    Kind
	ID      uint32
	Payload []byte
}

// Writer sends frames; safe for concurrent use.
type Writer struct {
	mu sync.Mutex
	w  io.Writer
}

// NewWriter returns a Writer on w.
func NewWriter(w io.Writer) *Writer { return &Writer{w: w} }

// Pad fills up a frame that the peer may have got in part.
func (w *Writer) Pad() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, err := w.w.Write(make([]byte, header+MaxPayload))
	return err
}

// Write sends one frame, whose payload must not be longer than MaxPayload.
func (w *Writer) Write(kind Kind, id uint32, payload []byte) error {
	if len(payload) > MaxPayload {
		return fmt.Errorf("wire: payload of %d bytes", len(payload))
	}
	b := make([]byte, header, header+len(payload))
	copy(b, magic[:])
	b[3] = byte(kind)
	binary.LittleEndian.PutUint32(b[4:], id)
	binary.LittleEndian.PutUint32(b[8:], uint32(len(payload)))
	w.mu.Lock()
	defer w.mu.Unlock()
	_, err := w.w.Write(append(b, payload...))
	return err
}

// JSON sends v as one frame.
func (w *Writer) JSON(kind Kind, id uint32, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return w.Write(kind, id, b)
}

// Stream returns a writer whose bytes go out as frames of the kind.
func (w *Writer) Stream(kind Kind, id uint32) io.Writer { return stream{w, kind, id} }

type stream struct {
	w    *Writer
	kind Kind
	id   uint32
}

func (s stream) Write(p []byte) (int, error) {
	for n := 0; n < len(p); {
		part := p[n:min(len(p), n+MaxPayload)]
		if err := s.w.Write(s.kind, s.id, part); err != nil {
			return n, err
		}
		n += len(part)
	}
	return len(p), nil
}

// Reader receives frames.
type Reader struct{ r *bufio.Reader }

// NewReader returns a Reader on r.
func NewReader(r io.Reader) *Reader { return &Reader{bufio.NewReaderSize(r, 2*(header+MaxPayload))} }

// Read returns the next frame, skipping what is none.
func (r *Reader) Read() (Frame, error) {
	for {
		b, err := r.r.Peek(header)
		if err != nil {
			return Frame{}, err
		}
		n := binary.LittleEndian.Uint32(b[8:])
		if [3]byte(b[:3]) != magic || n > MaxPayload {
			_, _ = r.r.Discard(1)
			continue
		}
		f := Frame{Kind: Kind(b[3]), ID: binary.LittleEndian.Uint32(b[4:]), Payload: make([]byte, n)}
		_, _ = r.r.Discard(header)
		if _, err := io.ReadFull(r.r, f.Payload); err != nil {
			return Frame{}, err
		}
		return f, nil
	}
}
