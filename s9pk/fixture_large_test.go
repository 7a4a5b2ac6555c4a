package s9pk_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha512"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/selfstead/selfstead/s9pk"
	"github.com/selfstead/selfstead/s9pk/merkle"
)

// largeFixture makes the archives that are too large to keep; nil for the one
// that cannot be made, where it is not at hand.
func largeFixture(t testing.TB, name string) []byte {
	t.Helper()
	files := map[string]string{}
	switch name {
	case "name-1mib.s9pk":
		files["d/"+strings.Repeat("L", 1<<20)] = "x"
	case "root-toc-over-1mib.s9pk":
		files[strings.Repeat("L", 600_000)] = "x"
		files["L"+strings.Repeat("k", 500_000)] = "y"
	case "name-1mib-1.s9pk":
		return nameTooLong(t)
	default: // random content
		b, err := os.ReadFile(filepath.Join("../../shared/fixtures/s9pk", name))
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	root := merkle.NewDirectory()
	for path, content := range files {
		if _, err := root.Put(path, s9pk.Bytes([]byte(content))); err != nil {
			t.Fatal(err)
		}
	}
	var b bytes.Buffer
	if err := s9pk.Write(&b, root, seedOf(t, name), s9pk.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func seedOf(t testing.TB, name string) ed25519.PrivateKey {
	t.Helper()
	for _, v := range verdicts(t) {
		if v.File == name {
			seed, err := hex.DecodeString(v.SignerSeed)
			if err != nil {
				t.Fatal(err)
			}
			return ed25519.NewKeyFromSeed(seed)
		}
	}
	t.Fatalf("no seed for %s", name)
	return nil
}

// signed puts a header in front of what follows it; the root table comes first.
func signed(key ed25519.PrivateKey, root []*merkle.Entry, tableSize, maxSize uint64, rest ...[]byte) []byte {
	d, _, _ := merkle.DirectoryOf(root)
	h, err := d.Sighash()
	if err != nil {
		panic(err) // entries read from a table have their hashes
	}
	c := merkle.Commitment{RootSighash: h, RootMaxsize: maxSize}
	digest := sha512.Sum512(c.Message())
	sig, err := key.Sign(nil, digest[:], &ed25519.Options{Hash: 7, Context: s9pk.Context})
	if err != nil {
		panic(err) // of a good key
	}
	b := append([]byte{0x3b, 0x3b, 2}, key.Public().(ed25519.PublicKey)...)
	b = append(b, sig...)
	b = append(b, c.Message()...)
	b = binary.BigEndian.AppendUint64(b, s9pk.HeaderSize)
	b = binary.BigEndian.AppendUint64(b, tableSize)
	return append(b, bytes.Join(rest, nil)...)
}

// nameTooLong is an archive that the reference writes and cannot read.
func nameTooLong(t testing.TB) []byte {
	t.Helper()
	child := []*merkle.Entry{{Name: strings.Repeat("L", 1<<20+1), Kind: merkle.KindFile, Hash: merkle.Sum([]byte("x")), Size: 1, Hashed: true}}
	size := merkle.TableLen(child)
	child[0].Position = s9pk.HeaderSize + 60 + size
	d, _, _ := merkle.DirectoryOf(child)
	h, err := d.Sighash()
	if err != nil {
		t.Fatal(err)
	}
	root := []*merkle.Entry{{Name: "d", Kind: merkle.KindDirectory, Hash: h, Size: size, Hashed: true, Position: s9pk.HeaderSize + 60, TableSize: size}}
	return signed(seedOf(t, "name-1mib-1.s9pk"), root, 60, 60, merkle.AppendTable(nil, root), merkle.AppendTable(nil, child), []byte("x"))
}
