package image

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// guestPackage is the command that Guest builds.
const guestPackage = "github.com/selfstead/selfstead/lxcrt/guest/cmd/start-container"

// GuestOptions tune Guest. Cache has to be set.
type GuestOptions struct {
	// Cache is the folder in which programs are kept. It is made if missing.
	Cache string
	// Dir is inside the module to build from, which is this one or requires it;
	// empty is the working directory.
	Dir string
	// Arch is Go's name of the architecture; empty is the host's.
	Arch string
	// Go is the Go tool; empty looks for "go".
	Go string
}

// Guest returns the path of the static guest program, for lxcrt's Options.Guest,
// building it with the Go tool unless the cache has the one of the same sources
// and Go release, whole. It needs no network if the module's dependencies are
// there.
func Guest(ctx context.Context, o GuestOptions) (string, error) {
	if !filepath.IsAbs(o.Cache) {
		return "", fmt.Errorf("%w: cache folder %q", ErrInvalid, o.Cache)
	}
	if o.Arch == "" {
		o.Arch = runtime.GOARCH
	}
	if o.Go == "" {
		o.Go = "go"
	}
	if _, err := exec.LookPath(o.Go); err != nil {
		return "", fmt.Errorf("%w: the Go tool: %w", ErrNotSupported, err)
	}
	key, err := o.key(ctx)
	if err != nil {
		return "", fmt.Errorf("image: guest: %w", err)
	}
	file, err := keep(ctx, o.Cache, "guest-"+o.Arch+"-"+key, func(Progress) {}, func(work string) (string, error) {
		out := filepath.Join(work, "guest")
		if _, err := o.run(ctx, "build", "-trimpath", "-buildvcs=false", "-ldflags", guestFlags, "-o", out, guestPackage); err != nil {
			return "", err
		}
		return out, os.Chmod(out, 0o755)
	})
	if err != nil {
		return "", fmt.Errorf("image: guest: %w", err)
	}
	return file, nil
}

const guestFlags = "-s -w -buildid="

func (o GuestOptions) run(ctx context.Context, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, o.Go, args...)
	cmd.Dir = o.Dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+o.Arch, "GOFLAGS=")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("go %s: %w: %s", args[0], err, bytes.TrimSpace(errs.Bytes()))
	}
	return out.Bytes(), nil
}

// key is a hash over the sources of everything in the program; those of the
// standard library by Go's release.
func (o GuestOptions) key(ctx context.Context) (string, error) {
	release, err := o.run(ctx, "env", "GOVERSION", "GOEXPERIMENT", "GOAMD64", "GOARM64")
	if err != nil {
		return "", err
	}
	list, err := o.run(ctx, "list", "-deps", "-json=ImportPath,Dir,GoFiles,SFiles,HFiles,EmbedFiles,Standard", guestPackage)
	if err != nil {
		return "", err
	}
	h := sha256.New()
	fmt.Fprintf(h, "guest %s %s %s", guestFlags, o.Arch, release)
	for d := json.NewDecoder(bytes.NewReader(list)); ; {
		var p struct {
			ImportPath, Dir                     string
			GoFiles, SFiles, HFiles, EmbedFiles []string
			Standard                            bool
		}
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return "", err
		}
		if p.Standard {
			continue
		}
		for _, f := range [][]string{p.GoFiles, p.SFiles, p.HFiles, p.EmbedFiles} {
			for _, name := range f {
				sum, err := hashFile(filepath.Join(p.Dir, name))
				if err != nil {
					return "", err
				}
				fmt.Fprintf(h, "%s %s %s\n", p.ImportPath, strings.ReplaceAll(name, "\n", ""), sum)
			}
		}
	}
	return hex.EncodeToString(h.Sum(nil)[:10]), nil
}
