package image

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path"
	"regexp"
	"strings"
)

// layout reads the files of an OCI image layout ("Image Layout Specification").
type layout struct {
	open  func(name string) (io.ReadCloser, error)
	close func()
}

func openLayout(file string) (*layout, error) {
	st, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	if st.IsDir() {
		root, err := os.OpenRoot(file)
		if err != nil {
			return nil, err
		}
		return &layout{open: func(name string) (io.ReadCloser, error) { return root.Open(name) }, close: func() { root.Close() }}, nil
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	// Where each member stands, so that they can be read in any order.
	members := map[string][2]int64{}
	at := &counting{r: f}
	tr := tar.NewReader(at)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			f.Close()
			return nil, fmt.Errorf("not an uncompressed tar: %w", err)
		}
		if h.Typeflag == tar.TypeReg {
			members[path.Clean(strings.TrimPrefix(h.Name, "/"))] = [2]int64{at.n, h.Size}
		}
	}
	return &layout{close: func() { f.Close() }, open: func(name string) (io.ReadCloser, error) {
		m, ok := members[name]
		if !ok {
			return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
		}
		return io.NopCloser(io.NewSectionReader(f, m[0], m[1])), nil
	}}, nil
}

// counting knows how far a tar was read; archive/tar reads no further than the
// header that Next returns.
type counting struct {
	r io.ReadSeeker
	n int64
}

func (c *counting) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.n += int64(n)
	return n, err
}

func (c *counting) Seek(offset int64, whence int) (int64, error) {
	n, err := c.r.Seek(offset, whence)
	if err == nil {
		c.n = n
	}
	return n, err
}

// descriptor names a blob ("OCI Content Descriptors").
type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int64             `json:"size"`
	Annotations map[string]string `json:"annotations"`
	Platform    *struct {
		Architecture string `json:"architecture"`
		OS           string `json:"os"`
	} `json:"platform"`
}

var digestForm = regexp.MustCompile(`^(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$`)

// blob is a reader that fails at the end unless everything had the digest and the
// size that it was asked for.
type blob struct {
	io.ReadCloser
	d   descriptor
	sum hash.Hash
	n   int64
}

func (l *layout) blob(d descriptor) (*blob, error) {
	if !digestForm.MatchString(d.Digest) || d.Size < 0 {
		return nil, fmt.Errorf("%w: digest %q of %d bytes", ErrLayout, d.Digest, d.Size)
	}
	algorithm, hex, _ := strings.Cut(d.Digest, ":")
	r, err := l.open("blobs/" + algorithm + "/" + hex)
	if err != nil {
		return nil, err
	}
	b := &blob{ReadCloser: r, d: d, sum: sha256.New()}
	if algorithm == "sha512" {
		b.sum = sha512.New()
	}
	return b, nil
}

func (b *blob) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.sum.Write(p[:n])
	if b.n += int64(n); b.n > b.d.Size {
		return n, fmt.Errorf("%w: %s is longer than %d bytes", ErrDamaged, b.d.Digest, b.d.Size)
	}
	if errors.Is(err, io.EOF) {
		if _, want, _ := strings.Cut(b.d.Digest, ":"); b.n != b.d.Size || hex.EncodeToString(b.sum.Sum(nil)) != want {
			return n, fmt.Errorf("%w: blob %s", ErrDamaged, b.d.Digest)
		}
	}
	return n, err
}

// maxJSON bounds the documents of a layout.
const maxJSON = 4 << 20

func (l *layout) document(d descriptor, into any) error {
	if d.Size > maxJSON {
		return fmt.Errorf("%w: a document of %d bytes", ErrLayout, d.Size)
	}
	b, err := l.blob(d)
	if err != nil {
		return err
	}
	defer b.Close()
	text, err := io.ReadAll(b)
	if err != nil {
		return err
	}
	return parse(text, into)
}

func parse(text []byte, into any) error {
	if err := json.NewDecoder(bytes.NewReader(text)).Decode(into); err != nil {
		return fmt.Errorf("%w: %w", ErrLayout, err)
	}
	return nil
}

// manifest is "OCI Image Manifest" and, with Manifests, "OCI Image Index".
type manifest struct {
	MediaType string       `json:"mediaType"`
	Config    descriptor   `json:"config"`
	Layers    []descriptor `json:"layers"`
	Manifests []descriptor `json:"manifests"`
}

// choose finds the one manifest of a reference and an architecture.
func (l *layout) choose(ref, arch string) (descriptor, manifest, error) {
	var none descriptor
	r, err := l.open("index.json")
	if err != nil {
		return none, manifest{}, err
	}
	text, err := io.ReadAll(io.LimitReader(r, maxJSON))
	r.Close()
	if err != nil {
		return none, manifest{}, err
	}
	var index manifest
	if err := parse(text, &index); err != nil {
		return none, manifest{}, err
	}
	for depth := 0; ; depth++ {
		var fit []descriptor
		var seen []string
		for _, d := range index.Manifests {
			name, platform := d.Annotations["org.opencontainers.image.ref.name"], "any platform"
			if d.Platform != nil {
				platform = d.Platform.OS + "/" + d.Platform.Architecture
			}
			seen = append(seen, strings.TrimSpace(name+" "+platform))
			if depth == 0 && ref != "" && ref != name && ref != d.Annotations["io.containerd.image.name"] {
				continue
			}
			if d.Platform == nil || d.Platform.OS == "linux" && d.Platform.Architecture == arch {
				fit = append(fit, d)
			}
		}
		if len(fit) != 1 {
			return none, manifest{}, fmt.Errorf("%w: %d images fit %q for linux/%s among: %s", ErrLayout, len(fit), ref, arch, strings.Join(seen, ", "))
		}
		var m manifest
		if err := l.document(fit[0], &m); err != nil {
			return none, manifest{}, err
		}
		if len(m.Manifests) == 0 {
			return fit[0], m, nil
		}
		if index = m; depth == 4 {
			return none, manifest{}, fmt.Errorf("%w: an index within an index within an index", ErrLayout)
		}
	}
}

// ErrLayout: it is not an OCI layout, or not one with the image that was asked for.
var ErrLayout = errors.New("image: not a usable OCI layout")
