package s9pk_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/selfstead/selfstead/s9pk"
	"github.com/selfstead/selfstead/s9pk/merkle"
)

// verdict is what the reference implementation says of one archive.
type verdict struct {
	File, Open, OpenWithOwnCommitment string
	Verify, S9pk                      string
	Validate, ValidateX86_64          string
	Reserialize, ReserializeStandard  string // sha256 of a rewrite in OrderNone, OrderStandard
	SHA256, SignerSeed, Order         string
	Signer, RootSighash               string
	RootMaxsize                       uint64
	Missing, FilePaths                []string
	ValidateMissing                   []string // paths that validation leaves out
	ValidateSha256                    string   // of the rewrite of what is left
	ValidateX86_64Missing             []string
	ValidateX86_64Sha256              string
	ValidateMessage                   string
	ValidateX86_64Message             string
}

// stricter lists the archives that the reference opens and we refuse, and that
// Lenient opens.
var stricter = map[string]bool{
	"deep-64.s9pk": true, "dup-last-wins.s9pk": true, "entry-size-huge.s9pk": true, "manifest-size-huge.s9pk": true,
	"name-slash.s9pk": true, "name-dotdot.s9pk": true, "name-dot.s9pk": true, "name-absolute.s9pk": true, "name-root.s9pk": true,
	"name-empty.s9pk": true, "name-nul.s9pk": true, "name-traversal.s9pk": true,
	"file-as-dir.s9pk": true, "retype-empty-dir-to-file.s9pk": true,
}

func verdicts(t testing.TB) []verdict {
	t.Helper()
	b, err := os.ReadFile("testdata/verdicts.json")
	if err != nil {
		t.Fatal(err)
	}
	var list []verdict
	if err := json.Unmarshal(b, &list); err != nil {
		t.Fatal(err)
	}
	return list
}

// fixture reads an archive, or makes one of the few that are too large to keep.
func fixture(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata/fixtures", name))
	if errors.Is(err, fs.ErrNotExist) {
		return largeFixture(t, name)
	}
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// matches says whether an error is of the class that the reference gave.
func matches(err error, kind string) bool {
	switch kind {
	case "ok":
		return err == nil
	case "Filesystem":
		return errors.Is(err, s9pk.ErrTruncated) || errors.Is(err, s9pk.ErrFormat)
	case "ParseS9pk":
		return errors.Is(err, s9pk.ErrFormat) || errors.Is(err, s9pk.ErrKind) || errors.Is(err, s9pk.ErrMissing)
	case "InvalidSignature":
		return errors.Is(err, s9pk.ErrSignature) || errors.Is(err, s9pk.ErrHashMismatch) || errors.Is(err, s9pk.ErrTruncated) ||
			errors.Is(err, s9pk.ErrLimit) || errors.Is(err, s9pk.ErrSize) || errors.Is(err, s9pk.ErrCommitment)
	case "NotFound":
		return errors.Is(err, fs.ErrNotExist)
	case "Deserialization":
		return errors.Is(err, s9pk.ErrManifest)
	case "Crash", "Panic":
		return err != nil
	}
	return false
}

func open(b []byte, o s9pk.Options) (*s9pk.Archive, error) {
	return s9pk.Open(bytes.NewReader(b), int64(len(b)), o)
}

// stream runs an archive through a StreamVerifier in pieces of the given size.
func stream(b []byte, piece int, o s9pk.Options) (*s9pk.Summary, error) {
	o.Received = bytes.NewReader(b)
	sv := s9pk.NewStreamVerifier(o)
	for p := range slices.Chunk(b, piece) {
		if _, err := sv.Write(p); err != nil {
			return nil, err
		}
	}
	return sv.Close()
}

func TestFixtures(t *testing.T) {
	t.Parallel()
	for _, v := range verdicts(t) {
		t.Run(v.File, func(t *testing.T) {
			t.Parallel()
			b := fixture(t, v.File)
			if b == nil {
				return // its content is random and of no other interest; larger bodies are tested elsewhere
			}
			if sum := sha256.Sum256(b); hex.EncodeToString(sum[:]) != v.SHA256 {
				t.Fatalf("fixture is not the one that was judged")
			}
			o := s9pk.Options{}
			if stricter[v.File] {
				if _, err := open(b, o); !errors.Is(err, s9pk.ErrUnsafe) {
					t.Fatalf("default: got %v, want ErrUnsafe", err)
				}
				if _, err := stream(b, 7, o); !errors.Is(err, s9pk.ErrUnsafe) {
					t.Fatalf("stream: got %v, want ErrUnsafe", err)
				}
				o.Lenient = true
			}
			judge(t, b, v, o)
		})
	}
}

func judge(t *testing.T, b []byte, v verdict, o s9pk.Options) {
	ctx := context.Background()
	a, err := open(b, o)
	if !matches(err, v.Open) {
		t.Fatalf("open: got %v, want %s", err, v.Open)
	}
	want := v.Verify
	if v.Open != "ok" {
		want = v.Open
	}
	for _, piece := range []int{1, 13, 1 << 20} {
		if len(b) > 100_000 && piece == 1 {
			continue
		}
		sum, err := stream(b, piece, o)
		if !matches(err, want) {
			t.Errorf("stream by %d: got %v, want %s", piece, err, want)
		}
		if err == nil && sum.Header.Commitment != a.Commitment() {
			t.Errorf("stream by %d: commitment %v", piece, sum.Header.Commitment)
		}
	}
	if v.OpenWithOwnCommitment != "" && v.RootSighash != "" {
		h, err := merkle.ParseHash(v.RootSighash)
		if err != nil {
			t.Fatal(err)
		}
		own := o
		own.Commitment = &merkle.Commitment{RootSighash: h, RootMaxsize: v.RootMaxsize}
		if a, err = open(b, own); !matches(err, v.OpenWithOwnCommitment) {
			t.Fatalf("open with its commitment: got %v, want %s", err, v.OpenWithOwnCommitment)
		}
	}
	if a == nil {
		return
	}
	if got := hex.EncodeToString(a.Signer()); got != v.Signer {
		t.Errorf("signer %s, want %s", got, v.Signer)
	}
	if err := a.Verify(ctx, nil); !matches(err, v.Verify) {
		t.Errorf("verify: got %v, want %s", err, v.Verify)
	}
	if _, err := a.Manifest(ctx); v.S9pk != "" && v.Open == "ok" && !matches(err, v.S9pk) && !(v.S9pk == "Panic" && err != nil) {
		t.Errorf("manifest: got %v, want %s", err, v.S9pk)
	}
	var missing []string
	a.Root().Walk(func(path string, e *merkle.Entry) error {
		if e.Kind == merkle.KindMissing {
			missing = append(missing, path)
		}
		return nil
	})
	if slices.Sort(missing); !slices.Equal(missing, v.Missing) {
		t.Errorf("missing: got %q, want %q", missing, v.Missing)
	}
	if v.FilePaths != nil {
		checkPaths(t, a, v.FilePaths)
	}
	for order, want := range map[s9pk.Order]string{s9pk.OrderNone: v.Reserialize, s9pk.OrderStandard: v.ReserializeStandard} {
		if want != "" && !o.Lenient {
			checkRewrite(t, a, order, want)
		}
	}
	checkExtract(t, a, v)
	if o.Lenient {
		if err := a.Rewrite(ctx, &bytes.Buffer{}, a.Root(), s9pk.WriteOptions{}); !errors.Is(err, s9pk.ErrReadOnly) {
			t.Errorf("rewrite of a lenient archive: %v", err)
		}
	}
	if v.Open == "ok" && v.SignerSeed != "" && v.Order != "" && !o.Lenient && v.Verify == "ok" {
		checkSign(t, a, b, v)
	}
}

// checkExtract takes an archive apart: all of it, or nothing is left.
func checkExtract(t *testing.T, a *s9pk.Archive, v verdict) {
	t.Helper()
	parent := t.TempDir()
	dir := filepath.Join(parent, "x")
	err := a.Extract(context.Background(), dir, s9pk.ExtractOptions{})
	switch {
	case a.Lenient():
		if !errors.Is(err, s9pk.ErrReadOnly) {
			t.Errorf("extract of a lenient archive: %v", err)
		}
	case errors.Is(err, syscall.ENAMETOOLONG): // the file system's own limit
	case !matches(err, v.Verify):
		t.Errorf("extract: got %v, want %s", err, v.Verify)
	}
	if err == nil {
		for _, f := range a.Files() {
			if info, err := os.Lstat(filepath.Join(dir, f.Path)); err != nil || info.Size() != f.Size {
				t.Errorf("extract: %s: %v", f.Path, err)
			}
		}
		return
	}
	if left, err := os.ReadDir(parent); err != nil || len(left) > 0 {
		t.Errorf("extract left %v, %v", left, err)
	}
}

func checkPaths(t *testing.T, a *s9pk.Archive, want []string) {
	t.Helper()
	var paths []string
	a.Root().Walk(func(path string, e *merkle.Entry) error {
		if e.Kind == merkle.KindDirectory {
			path += "/"
		}
		paths = append(paths, path)
		return nil
	})
	slices.Sort(paths)
	slices.Sort(want)
	if !slices.Equal(paths, want) {
		t.Errorf("paths: got %q, want %q", paths, want)
	}
}

func checkRewrite(t *testing.T, a *s9pk.Archive, order s9pk.Order, want string) {
	t.Helper()
	var out bytes.Buffer
	if err := a.Rewrite(context.Background(), &out, a.Root(), s9pk.WriteOptions{Order: order}); err != nil {
		t.Errorf("rewrite in order %d: %v", order, err)
		return
	}
	if sum := sha256.Sum256(out.Bytes()); hex.EncodeToString(sum[:]) != want {
		t.Errorf("rewrite in order %d: other bytes than the reference", order)
	}
}

// checkSign signs the same tree again: signatures are deterministic.
func checkSign(t *testing.T, a *s9pk.Archive, b []byte, v verdict) {
	t.Helper()
	seed, err := hex.DecodeString(v.SignerSeed)
	if err != nil {
		t.Fatal(err)
	}
	key := ed25519.NewKeyFromSeed(seed)
	sig, err := s9pk.Sign(key, a.Commitment(), s9pk.Context)
	if h := a.Header(); err != nil || !bytes.Equal(sig, h.Signature) {
		t.Errorf("signature differs: %v", err)
	}
	if len(v.Missing) > 0 || a.Header().TablePosition != s9pk.HeaderSize {
		return
	}
	order := s9pk.OrderStandard
	if v.Order == "none" {
		order = s9pk.OrderNone
	}
	fresh := merkle.NewDirectory()
	err = a.Root().Walk(func(path string, e *merkle.Entry) error {
		if e.Kind == merkle.KindDirectory {
			_, err := fresh.MakeDir(path)
			return err
		}
		f, err := a.File(path)
		if err != nil {
			return err
		}
		content, err := f.ReadAll(0)
		if err != nil {
			return err
		}
		_, err = fresh.Put(path, s9pk.Bytes(content))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := s9pk.Write(&out, fresh.Clone(), key, s9pk.WriteOptions{Order: order}); err != nil || !bytes.Equal(out.Bytes(), b) {
		t.Errorf("written anew: other bytes than the reference, %v", err)
	}
	path := filepath.Join(t.TempDir(), "x.s9pk")
	if err := s9pk.WriteFile(context.Background(), path, fresh, key, s9pk.WriteOptions{Order: order, NoSync: true}); err != nil {
		t.Error(err)
	}
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, b) {
		t.Errorf("written to a file: other bytes than the reference, %v", err)
	}
}

func TestCommitments(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("testdata/commitments.json")
	if err != nil {
		t.Fatal(err)
	}
	var list struct {
		Cases []struct {
			File, Name string
			Commitment merkle.Commitment
			Result     struct{ OK bool }
		}
	}
	if err := json.Unmarshal(text, &list); err != nil {
		t.Fatal(err)
	}
	for _, c := range list.Cases {
		_, err := open(fixture(t, c.File), s9pk.Options{Commitment: &c.Commitment})
		if c.Result.OK != (err == nil) || err != nil && !errors.Is(err, s9pk.ErrCommitment) {
			t.Errorf("%s: got %v", c.Name, err)
		}
		_, err = stream(fixture(t, c.File), 5, s9pk.Options{Commitment: &c.Commitment})
		if c.Result.OK != (err == nil) {
			t.Errorf("%s, stream: got %v", c.Name, err)
		}
	}
}
