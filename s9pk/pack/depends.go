package pack

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/selfstead/selfstead/s9pk"
	"github.com/selfstead/selfstead/s9pk/remote"
)

// maxIcon bounds a dependency's icon: 100 KiB from a path, as the reference
// packer has it, and the same from elsewhere, where it has none.
const maxIcon = 100 << 10

// iconExtensions name a dependency's icon after its media type. For JPEG the
// reference packer writes "pjp", the last of the extensions it knows.
var iconExtensions = map[string]string{
	"image/apng": "apng", "image/avif": "avif", "image/flif": "flif", "image/gif": "gif", "image/jxl": "jxl",
	"image/png": "png", "image/svg+xml": "svg", "image/webp": "webp", "image/jpeg": "pjp", "image/x-mng": "x-mng",
}

// dependencies puts title and icon of each dependency that says where to find
// them, and takes the build inputs out of the manifest.
func (p *packer) dependencies(ctx context.Context) error {
	for _, id := range ids(p.manifest.Dependencies) {
		dep := p.manifest.Dependencies[id]
		p.Progress(Progress{Step: "dependency " + id})
		var title s9pk.LocaleString
		var icon []byte
		var kind string
		var err error
		switch {
		case dep.Metadata != nil:
			title = dep.Metadata.Title
			icon, kind, err = p.icon(ctx, dep.Metadata.Icon)
		case dep.Package != nil && dep.Package.Location != nil:
			title, icon, kind, err = p.fromPackage(ctx, *dep.Package.Location)
		default:
			p.Logger.Warn("nothing says how to show a dependency that is not installed", "dependency", id)
			dep.Package = nil
			p.manifest.Dependencies[id] = dep
			continue
		}
		if err != nil {
			return fmt.Errorf("%w: dependency %s: %w", ErrProject, id, err)
		}
		ext := iconExtensions[kind]
		if ext == "" {
			return fmt.Errorf("%w: dependency %s: its icon is %q, which is no type of image that can be an icon", ErrProject, id, kind)
		}
		var meta bytes.Buffer
		enc := json.NewEncoder(&meta)
		enc.SetEscapeHTML(false)
		if err := enc.Encode(map[string]s9pk.LocaleString{"title": title}); err != nil {
			return fmt.Errorf("pack: dependency %s: %w", id, err)
		}
		dir := s9pk.DependenciesPath + "/" + id + "/"
		if err := p.put(dir+"metadata.json", s9pk.Bytes(bytes.TrimSpace(meta.Bytes()))); err != nil {
			return err
		}
		if err := p.put(dir+"icon."+ext, s9pk.Bytes(icon)); err != nil {
			return err
		}
		dep.Metadata, dep.Package = nil, nil
		p.manifest.Dependencies[id] = dep
	}
	return nil
}

// icon reads an icon from a path of the project, or from an http, https or data
// URL.
func (p *packer) icon(ctx context.Context, where string) (b []byte, kind string, err error) {
	if name, ok := strings.CutPrefix(where, "file://"); ok {
		f, err := os.Open(p.local(name))
		if err != nil {
			return nil, "", err
		}
		defer f.Close()
		b, err = atMost(f, maxIcon)
		return b, s9pk.ImageType(name), err
	}
	u, err := url.Parse(where)
	if err != nil {
		return nil, "", err
	}
	switch u.Scheme {
	case "data":
		return dataURL(u.Opaque)
	case "http", "https":
		return p.download(ctx, where)
	}
	return nil, "", fmt.Errorf("icons do not come from %q URLs", u.Scheme)
}

func (p *packer) local(name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(p.Dir, name)
}

func atMost(r io.Reader, limit int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(b)) > limit {
		return nil, fmt.Errorf("more than %d bytes", limit)
	}
	return b, err
}

func (p *packer) download(ctx context.Context, from string) ([]byte, string, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, from, nil)
	if err != nil {
		return nil, "", err
	}
	client := p.Client
	if client == nil {
		client = http.DefaultClient
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, "", fmt.Errorf("%s: %s", from, resp.Status)
	}
	kind, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if err != nil {
		return nil, "", fmt.Errorf("%s: content type: %w", from, err)
	}
	b, err := atMost(resp.Body, maxIcon)
	return b, kind, err
}

// dataURL reads what follows "data:" (RFC 2397).
func dataURL(text string) ([]byte, string, error) {
	head, body, ok := strings.Cut(text, ",")
	if !ok {
		return nil, "", fmt.Errorf("data URL without a comma")
	}
	kind, base64ed := strings.CutSuffix(head, ";base64")
	if media, _, err := mime.ParseMediaType(kind); err == nil {
		kind = media
	}
	plain, err := url.PathUnescape(body)
	if err != nil {
		return nil, "", err
	}
	b := []byte(plain)
	if base64ed {
		if b, err = base64.StdEncoding.DecodeString(plain); err != nil {
			return nil, "", err
		}
	}
	if len(b) > maxIcon {
		return nil, "", fmt.Errorf("more than %d bytes", maxIcon)
	}
	return b, kind, nil
}

// fromPackage takes title and icon from another package.
func (p *packer) fromPackage(ctx context.Context, where string) (title s9pk.LocaleString, icon []byte, kind string, err error) {
	var a *s9pk.Archive
	if name, ok := strings.CutPrefix(where, "file://"); ok {
		if a, err = s9pk.OpenFile(p.local(name), s9pk.Options{}); err != nil {
			return title, nil, "", err
		}
		defer a.Close()
	} else {
		p, err := remote.OpenPackage(ctx, where, remote.Options{Client: p.Client}, s9pk.Options{})
		if err != nil {
			return title, nil, "", err
		}
		defer p.Close()
		a = p.Archive
	}
	m, err := a.Manifest(ctx)
	if err != nil {
		return title, nil, "", err
	}
	f, kind, err := a.Icon()
	if err != nil {
		return title, nil, "", err
	}
	icon, err = f.ReadAll(4 << 20)
	return s9pk.Text(m.Title), icon, kind, err
}
