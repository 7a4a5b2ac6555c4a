package validate

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/selfstead/selfstead/s9pk"
	"github.com/selfstead/selfstead/s9pk/s9pktest"
)

func open(b []byte, o s9pk.Options) (*s9pk.Archive, error) {
	return s9pk.Open(bytes.NewReader(b), int64(len(b)), o)
}

func TestGoodPackage(t *testing.T) {
	t.Parallel()
	a := s9pktest.Archive(t, s9pktest.Spec{})
	if breaches := Package(a, ""); len(breaches) != 0 || Err(breaches) != nil {
		t.Errorf("got %v", breaches)
	}
}

func TestValidateReportsAll(t *testing.T) {
	t.Parallel()
	b := s9pktest.Build(t, s9pktest.Spec{Files: map[string][]byte{
		"LICENSE.md": nil, "icon.svg": nil, "images/x86_64/main.env": nil, "instructions.md": nil, "stray/file": []byte("x"),
	}, Manifest: func(m *s9pk.Manifest) { m.Description.Short = s9pk.Text(strings.Repeat("x", 161)) }})
	a, err := open(b, s9pk.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var failed, warned []string
	for _, br := range Package(a, "") {
		place := br.Path
		if br.Field != "" {
			place += "#" + br.Field
		}
		if br.Warning {
			warned = append(warned, place)
		} else {
			failed = append(failed, place)
		}
	}
	if want := []string{"icon", "LICENSE.md", "images/x86_64/main.env"}; !slices.Equal(failed, want) {
		t.Errorf("breaches %q, want %q", failed, want)
	}
	if want := []string{"instructions.md", "manifest.json#description.short", "stray/file"}; !slices.Equal(warned, want) {
		t.Errorf("warnings %q, want %q", warned, want)
	}

	bad := s9pktest.Build(t, s9pktest.Spec{Files: map[string][]byte{"LICENSE.md": nil, "manifest.json": []byte(`{"id":"Bad","version":"1","images":[]}`)}})
	if a, err = open(bad, s9pk.Options{}); err != nil {
		t.Fatal(err)
	}
	fields, others := map[string]bool{}, []string(nil)
	for _, br := range Package(a, "") {
		if br.Path == "manifest.json" {
			fields[br.Field] = true
		} else if !br.Warning {
			others = append(others, br.Path)
		}
	}
	if !slices.Equal(others, []string{"LICENSE.md"}) {
		t.Errorf("beside the manifest: %q", others)
	}
	for _, want := range []string{"id", "version", "images", "title", "license", "volumes"} {
		if !fields[want] {
			t.Errorf("nothing said of %s: %v", want, fields)
		}
	}
	if OK(Package(a, "")) || Err(Package(a, "")) == nil {
		t.Error("a bad package passes")
	}
}
