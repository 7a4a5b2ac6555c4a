package v1

import (
	"encoding/json"
	"fmt"
	"path"
	"reflect"
	"strconv"
	"strings"

	"github.com/fxamacker/cbor/v2"

	"github.com/selfstead/selfstead/s9pk"
	"github.com/selfstead/selfstead/s9pk/exver"
)

// Manifest is what conversion needs of a version 1 manifest.
type Manifest struct {
	EosVersion   string            `json:"eos-version"`
	ID           string            `json:"id"`
	GitHash      *string           `json:"git-hash"`
	Title        string            `json:"title"`
	Version      string            `json:"version"`
	Description  Description       `json:"description"`
	Assets       Assets            `json:"assets"`
	ReleaseNotes s9pk.LocaleString `json:"release-notes"`
	License      string            `json:"license"`
	WrapperRepo  string            `json:"wrapper-repo"`
	UpstreamRepo string            `json:"upstream-repo"`

	MarketingSite *string `json:"marketing-site"`
	DonationURL   *string `json:"donation-url"`

	Main         Procedure                  `json:"main"`
	Volumes      map[string]Volume          `json:"volumes"`
	Dependencies map[string]Dependency      `json:"dependencies"`
	Hardware     HardwareRequirements       `json:"hardware-requirements"`
	Raw          json.RawMessage            `json:"-"` // all of it, as JSON
	all          map[string]json.RawMessage // its fields
}

// Description is what the package is, in a line and at length.
type Description struct {
	Short s9pk.LocaleString `json:"short"`
	Long  s9pk.LocaleString `json:"long"`
}

// Assets names the files that the package was made of.
type Assets struct {
	Icon *string `json:"icon"`
}

// Procedure is how something is run: in an image ("docker") or by a script.
type Procedure struct {
	Type            string `json:"type"`
	Image           string `json:"image"`
	System          bool   `json:"system"`
	GPUAcceleration bool   `json:"gpu-acceleration"`
}

// Volume is storage; only type "data" survives conversion.
type Volume struct {
	Type string `json:"type"`
}

// Dependency is another package that this one works with.
type Dependency struct {
	Description *s9pk.LocaleString `json:"description"`
	Requirement struct {
		Type string `json:"type"`
	} `json:"requirement"`
}

// HardwareRequirements is what a device must have.
type HardwareRequirements struct {
	Device map[string]string `json:"device"` // class to pattern
	RAM    *uint64           `json:"ram"`
	Arch   []string          `json:"arch"`
}

// Manifest reads the manifest. The error wraps s9pk.ErrManifest.
func (a *Archive) Manifest() (*Manifest, error) {
	b, err := a.read(SectionManifest, maxManifest)
	if err != nil {
		return nil, err
	}
	mode, err := cbor.DecOptions{DefaultMapType: reflect.TypeFor[map[string]any](), UTF8: cbor.UTF8RejectInvalid}.DecMode()
	if err != nil {
		return nil, fmt.Errorf("s9pk: version 1 manifest: %w", err)
	}
	var v any
	bad := func(err error) error { return fail(SectionManifest, -1, fmt.Errorf("%w: %w", s9pk.ErrManifest, err)) }
	if err := mode.Unmarshal(b, &v); err != nil {
		return nil, bad(err)
	}
	m := &Manifest{}
	if m.Raw, err = json.Marshal(v); err != nil {
		return nil, bad(err)
	}
	if err := json.Unmarshal(m.Raw, m); err != nil {
		return nil, bad(err)
	}
	if err := json.Unmarshal(m.Raw, &m.all); err != nil {
		return nil, bad(err)
	}
	if m.ID == "" || m.Version == "" {
		return nil, bad(fmt.Errorf("id and version are needed"))
	}
	return m, nil
}

// IconName is the icon's file name in a version 2 package.
func (m *Manifest) IconName() string {
	ext := "png"
	if m.Assets.Icon != nil {
		if e := strings.TrimPrefix(path.Ext(*m.Assets.Icon), "."); e != "" {
			ext = e
		}
	}
	return "icon." + ext
}

// ImageRef is an image that some procedure uses. A system image belongs to
// StartOS and is shared by packages.
type ImageRef struct {
	ID     string
	System bool
}

// Tag is what the image is called in docker_images.
func (m *Manifest) Tag(r ImageRef) string {
	if r.System {
		return "start9/" + r.ID + ":latest"
	}
	return "start9/" + m.ID + "/" + r.ID + ":" + m.Version
}

// Images lists the images of all procedures, by name.
func (m *Manifest) Images() []ImageRef {
	seen := map[ImageRef]bool{}
	var visit func(raw json.RawMessage, depth int)
	visit = func(raw json.RawMessage, depth int) {
		var o map[string]json.RawMessage
		if depth > 4 || json.Unmarshal(raw, &o) != nil {
			return
		}
		var p Procedure
		if json.Unmarshal(raw, &p) == nil && p.Type == "docker" && p.Image != "" {
			seen[ImageRef{p.Image, p.System}] = true
			return
		}
		for _, child := range o {
			visit(child, depth+1)
		}
	}
	// Health checks are left out: the reference takes no images from them.
	for _, field := range []string{"main", "config", "properties", "backup", "migrations", "actions"} {
		visit(m.all[field], 0)
	}
	return sortedRefs(seen)
}

// ConvertVersion turns major.minor[.patch[.revision]] into an extended version.
func ConvertVersion(s string) (exver.ExtendedVersion, error) {
	parts := strings.Split(s, ".")
	if len(parts) < 2 || len(parts) > 4 {
		return exver.ExtendedVersion{}, fmt.Errorf("s9pk: version 1 version %.40q: need two to four numbers", s)
	}
	numbers := make([]uint64, 4)
	for i, p := range parts {
		n, err := strconv.ParseUint(p, 10, 64)
		if err != nil {
			return exver.ExtendedVersion{}, fmt.Errorf("s9pk: version 1 version %.40q: %.40q is no number", s, p)
		}
		numbers[i] = n
	}
	return exver.ExtendedVersion{Upstream: exver.Version{Numbers: numbers[:3]}, Downstream: exver.Version{Numbers: numbers[3:]}}, nil
}
