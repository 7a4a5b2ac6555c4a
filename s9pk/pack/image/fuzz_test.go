package image

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// FuzzLayers: two layers of any bytes make a tree that can be written, or an
// error, and never reach outside of it.
func FuzzLayers(f *testing.F) {
	f.Add(layerTar(f, lowerLayer...), layerTar(f, upperLayer...))
	f.Add(layerTar(f, entry{name: ".wh..wh..opq"}, entry{name: ".wh.x"}), []byte{})
	f.Fuzz(func(t *testing.T, one, two []byte) {
		dir := t.TempDir()
		tr := newTree()
		for i, b := range [][]byte{one, two} {
			name := filepath.Join(dir, string(rune('a'+i)))
			if err := os.WriteFile(name, b, 0o600); err != nil {
				t.Fatal(err)
			}
			file, err := os.Open(name)
			if err != nil {
				t.Fatal(err)
			}
			defer file.Close()
			if err := tr.addTar(context.Background(), file, dir, true); err != nil {
				return
			}
		}
		if err := tr.mountPoints(); err != nil {
			t.Fatal(err)
		}
		if err := tr.writeTar(context.Background(), io.Discard, time.Unix(0, 0), nil); err != nil {
			t.Log(err)
		}
	})
}
