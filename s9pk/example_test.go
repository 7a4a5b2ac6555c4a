package s9pk_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/selfstead/selfstead/s9pk"
	"github.com/selfstead/selfstead/s9pk/merkle"
	"github.com/selfstead/selfstead/s9pk/s9pktest"
)

// Write a small archive and read it back.
func ExampleWrite() {
	root := merkle.NewDirectory()
	if _, err := root.Put("docs/hello.txt", s9pk.Bytes([]byte("hello\n"))); err != nil {
		fmt.Println(err)
		return
	}
	var b bytes.Buffer
	if err := s9pk.Write(&b, root, s9pktest.Key("example"), s9pk.WriteOptions{}); err != nil {
		fmt.Println(err)
		return
	}
	a, err := s9pk.Open(bytes.NewReader(b.Bytes()), int64(b.Len()), s9pk.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, f := range a.Files() {
		content, err := f.ReadAll(1 << 10)
		fmt.Printf("%s %d %q %v\n", f.Path, f.Size, content, err)
	}
	fmt.Println("all bodies:", a.Verify(context.Background(), nil))
	// Output:
	// docs/hello.txt 6 "hello\n" <nil>
	// all bodies: <nil>
}

// Refuse an upload with the byte that shows its fault.
func ExampleStreamVerifier() {
	upload := strings.NewReader(";;\x03 is not the version we read, whatever follows")
	sv := s9pk.NewStreamVerifier(s9pk.Options{Package: true})
	_, err := io.Copy(sv, upload)
	if err == nil {
		_, err = sv.Close()
	}
	fmt.Println(err)
	fmt.Println("noticed after", sv.Received(), "bytes")
	// Output:
	// s9pk: open header: malformed data: magic or version is wrong (3b 3b 03)
	// noticed after 3 bytes
}
