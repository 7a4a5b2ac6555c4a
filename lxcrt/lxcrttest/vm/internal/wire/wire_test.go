package wire

import (
	"bytes"
	"io"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestFrames(t *testing.T) {
	var b bytes.Buffer
	w := NewWriter(&b)
	big := bytes.Repeat([]byte("0123456789"), 10_000)
	require.NoError(t, w.JSON(Run, 7, Command{Argv: []string{"true"}}))
	n, err := w.Stream(Output, 8).Write(big)
	require.NoError(t, err)
	require.Equal(t, len(big), n)
	require.NoError(t, w.Write(Input, 9, nil))
	require.Error(t, w.Write(Input, 9, big))

	r := NewReader(&b)
	f, err := r.Read()
	require.NoError(t, err)
	require.Equal(t, Frame{Run, 7, []byte(`{"argv":["true"]}`)}, f)
	var got []byte
	for len(got) < len(big) {
		f, err := r.Read()
		require.NoError(t, err)
		require.Equal(t, Output, f.Kind)
		got = append(got, f.Payload...)
	}
	require.Equal(t, big, got)
	f, err = r.Read()
	require.NoError(t, err)
	require.Equal(t, Frame{Input, 9, []byte{}}, f)
	_, err = r.Read()
	require.ErrorIs(t, err, io.EOF)
}

// TestTornFrame cuts a frame at every length: what the next boot says is heard.
func TestTornFrame(t *testing.T) {
	var whole bytes.Buffer
	require.NoError(t, NewWriter(&whole).Write(Output, 1, bytes.Repeat([]byte{0xf5}, 300)))
	for cut := range whole.Len() {
		b := bytes.NewBuffer(bytes.Clone(whole.Bytes()[:cut]))
		w := NewWriter(b)
		require.NoError(t, w.Pad())
		require.NoError(t, w.JSON(Hello, 0, Greeting{Kernel: "2"}))
		r := NewReader(b)
		for {
			f, err := r.Read()
			require.NoError(t, err, "cut at %d", cut)
			if f.Kind == Hello {
				break
			}
		}
	}
}
