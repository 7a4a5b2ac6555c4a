package s9pktest

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"maps"
	"slices"
	"testing"

	"github.com/selfstead/selfstead/s9pk"
	"github.com/selfstead/selfstead/s9pk/exver"
	"github.com/selfstead/selfstead/s9pk/merkle"
)

// Key returns a signing key that is always the same for a name.
func Key(name string) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte("s9pktest " + name))
	return ed25519.NewKeyFromSeed(seed[:])
}

// Squashfs is the shortest content that passes for a squashfs image at a glance.
// It cannot be mounted.
var Squashfs = []byte("hsqs placeholder")

// Spec says what package to build. The zero value is a good package.
type Spec struct {
	ID      string   // "" means "hello-world"
	Version string   // "" means "1.0.0:0"
	Arch    []string // nil means x86_64
	// Manifest, where not nil, changes the manifest before it is written.
	Manifest func(m *s9pk.Manifest)
	// Files are added to the package, or replace what is in it; nil content
	// takes a file away.
	Files map[string][]byte
	Key   s9pk.Signer // nil means Key("default")
	Order s9pk.Order
}

// Manifest returns the manifest of a package that has one image, "main", and
// one volume of the same name.
func Manifest(t testing.TB, id, version string, arch ...string) *s9pk.Manifest {
	t.Helper()
	v, err := exver.ParseVersionString(version)
	if err != nil {
		t.Fatal(err)
	}
	os, err := exver.ParseVersion(s9pk.OSVersion)
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(arch)
	return &s9pk.Manifest{
		ID: id, Version: v, CanMigrateTo: exver.None(), CanMigrateFrom: exver.Any(), Title: "Title of " + id,
		Description:  s9pk.Description{Short: s9pk.Text("short"), Long: s9pk.Text("long")},
		ReleaseNotes: s9pk.Text("notes"), License: "MIT", PackageRepo: "https://example.com/", UpstreamRepo: "https://example.com/up",
		OSVersion: os, Plugins: []string{}, Images: map[string]s9pk.Image{"main": {Arch: arch}}, Volumes: []string{"main"},
		Dependencies: map[string]s9pk.Dependency{}, HardwareRequirements: s9pk.HardwareRequirements{Devices: []s9pk.DeviceFilter{}, Arch: arch},
	}
}

// Tree builds the tree of a package; nothing in it is hashed yet.
func Tree(t testing.TB, s Spec) *merkle.Directory {
	t.Helper()
	if s.ID == "" {
		s.ID = "hello-world"
	}
	if s.Version == "" {
		s.Version = "1.0.0:0"
	}
	if s.Arch == nil {
		s.Arch = []string{"x86_64"}
	}
	m := Manifest(t, s.ID, s.Version, s.Arch...)
	if s.Manifest != nil {
		s.Manifest(m)
	}
	manifest, err := m.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{
		s9pk.ManifestPath: manifest, "icon.svg": []byte(`<svg xmlns="http://www.w3.org/2000/svg"/>`),
		s9pk.LicensePath: []byte("MIT\n"), s9pk.InstructionsPath: []byte("# " + s.ID + "\n"),
		s9pk.JavascriptPath: Squashfs, s9pk.AssetsPath: Squashfs,
	}
	for id, img := range m.Images {
		for _, arch := range img.Arch {
			files[s9pk.ImagePath(arch, id, ".squashfs")] = Squashfs
			files[s9pk.ImagePath(arch, id, ".json")] = []byte(`{"workdir":"/","user":"root","entrypoint":null,"cmd":["/bin/sh"]}`)
			files[s9pk.ImagePath(arch, id, ".env")] = []byte("PATH=/bin")
		}
	}
	maps.Copy(files, s.Files)
	root := merkle.NewDirectory()
	for path, content := range files {
		if content == nil {
			continue
		}
		if _, err := root.Put(path, s9pk.Bytes(content)); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// Build returns the bytes of a package.
func Build(t testing.TB, s Spec) []byte {
	t.Helper()
	key := s.Key
	if key == nil {
		key = Key("default")
	}
	var b bytes.Buffer
	if err := s9pk.Write(&b, Tree(t, s), key, s9pk.WriteOptions{Order: s.Order}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// Archive builds a package and opens it.
func Archive(t testing.TB, s Spec) *s9pk.Archive {
	t.Helper()
	b := Build(t, s)
	a, err := s9pk.Open(bytes.NewReader(b), int64(len(b)), s9pk.Options{Package: true})
	if err != nil {
		t.Fatal(err)
	}
	return a
}
