package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/selfstead/selfstead/lxcrt"
	"github.com/selfstead/selfstead/lxcrt/image"
)

// rootfs is what a container starts from.
type rootfs struct {
	layer  lxcrt.Layer
	config image.Config
	files  []lxcrt.File
}

// findImage takes what was named on the command line for what it is.
func findImage(ctx context.Context, name, cache, ref string, errOut io.Writer) (rootfs, error) {
	cache, err := filepath.Abs(cache)
	if err != nil {
		return rootfs{}, err
	}
	phase := ""
	progress := func(p image.Progress) {
		if p.Phase != phase && p.Phase != "verify" && p.Phase != "read" {
			phase = p.Phase
			fmt.Fprintf(errOut, "image: %s\n", phase)
		}
	}
	if name == "debian" {
		path, err := image.Build(ctx, image.Options{Cache: cache, Progress: progress})
		root := rootfs{layer: lxcrt.Layer{Path: path}}
		if err != nil {
			return root, err
		}
		// So that apt-get finds packages inside. A host without sources has kept the
		// image from before.
		if text, err := image.AptSources(""); err == nil {
			root.files = append(root.files, lxcrt.File{Path: "/etc/apt/sources.list", Data: text})
		}
		return root, nil
	}
	path, err := filepath.Abs(name)
	if err != nil {
		return rootfs{}, err
	}
	st, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return rootfs{}, fmt.Errorf("there is no image %s; an image is \"debian\", a squashfs file, a folder, or an OCI layout (a folder or a tar, as `skopeo copy docker://NAME oci:FOLDER` makes one)", name)
	}
	if err != nil {
		return rootfs{}, err
	}
	if st.IsDir() {
		if _, err := os.Stat(filepath.Join(path, "oci-layout")); err != nil {
			return rootfs{layer: lxcrt.Layer{Path: path}}, nil
		}
	} else if is, err := isSquashfs(path); err != nil {
		return rootfs{}, err
	} else if is {
		if err := image.Verify(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return rootfs{}, fmt.Errorf("%w; it was changed since it was made, so it is not used", err)
		}
		return rootfs{layer: lxcrt.Layer{Path: path}}, nil
	}
	c, err := image.FromOCI(ctx, image.Source{Cache: cache, Path: path, Ref: ref, Progress: progress})
	return rootfs{layer: lxcrt.Layer{Path: c.Path}, config: c.Config}, err
}

func isSquashfs(path string) (bool, error) {
	f, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	magic := make([]byte, 4)
	_, err = io.ReadFull(f, magic)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return false, err
	}
	return bytes.Equal(magic, []byte("hsqs")), nil
}

// resolvers is /etc/resolv.conf for a container: the host's, without those name
// servers that only the host itself can ask.
func resolvers() []byte {
	text, err := os.ReadFile("/etc/resolv.conf")
	if err != nil {
		return nil
	}
	var out []byte
	for line := range bytes.Lines(text) {
		f := bytes.Fields(line)
		if len(f) > 1 && string(f[0]) == "nameserver" && (bytes.HasPrefix(f[1], []byte("127.")) || string(f[1]) == "::1") {
			continue
		}
		out = append(out, line...)
	}
	return out
}
