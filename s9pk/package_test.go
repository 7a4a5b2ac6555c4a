package s9pk_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/selfstead/selfstead/s9pk"
	"github.com/selfstead/selfstead/s9pk/merkle"
	"github.com/selfstead/selfstead/s9pk/validate"
)

// TestPackages compares validation and what it leaves out with the reference.
func TestPackages(t *testing.T) {
	t.Parallel()
	for _, v := range verdicts(t) {
		if v.Validate == "" {
			continue
		}
		t.Run(v.File, func(t *testing.T) {
			t.Parallel()
			a, err := open(fixture(t, v.File), s9pk.Options{Package: true})
			if err != nil {
				t.Fatal(err)
			}
			checkValidation(t, a, "", v.Validate, v.ValidateMessage, v.ValidateMissing, v.ValidateSha256)
			checkValidation(t, a, "x86_64", v.ValidateX86_64, v.ValidateX86_64Message, v.ValidateX86_64Missing, v.ValidateX86_64Sha256)
		})
	}
}

func checkValidation(t *testing.T, a *s9pk.Archive, arch, want, message string, missing []string, sum string) {
	t.Helper()
	ctx := context.Background()
	breaches := validate.Package(a, arch)
	if (want == "ok") != validate.OK(breaches) {
		t.Errorf("arch %q: got %v, want %s", arch, breaches, want)
	}
	root, err := a.ForArch(ctx, arch)
	if want != "ok" {
		if err == nil {
			t.Errorf("arch %q: filtered what is no good package", arch)
		}
		// "file PATH missing from archive": the same place must be named.
		if path, ok := strings.CutPrefix(message, "file "); ok {
			path, _, _ = strings.Cut(path, " ")
			if !slices.ContainsFunc(breaches, func(b validate.Breach) bool { return b.Path == path }) {
				t.Errorf("arch %q: got %v, want one about %s", arch, breaches, path)
			}
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	var left []string
	root.Walk(func(path string, e *merkle.Entry) error {
		if e.Kind == merkle.KindMissing {
			left = append(left, path)
		}
		return nil
	})
	if slices.Sort(left); !slices.Equal(left, missing) {
		t.Errorf("arch %q leaves out %q, want %q", arch, left, missing)
	}
	if sum == "" {
		return
	}
	var out bytes.Buffer
	if err := a.Rewrite(ctx, &out, root, s9pk.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	if got := sha256.Sum256(out.Bytes()); hex.EncodeToString(got[:]) != sum {
		t.Errorf("arch %q: filtered rewrite has other bytes than the reference's", arch)
	}
	again, err := open(out.Bytes(), s9pk.Options{Package: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Verify(ctx, nil); err != nil || !validate.OK(validate.Package(again, arch)) {
		t.Errorf("arch %q: filtered package: %v, %v", arch, err, validate.Package(again, arch))
	}
}

func TestManifests(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("testdata/manifests.json")
	if err != nil {
		t.Fatal(err)
	}
	var cases []struct {
		Name, Input, Output string
		OK                  bool
	}
	if err := json.Unmarshal(text, &cases); err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		m, err := s9pk.ParseManifest([]byte(c.Input))
		if c.OK != (err == nil) {
			t.Errorf("%s: got %v, want ok %v", c.Name, err, c.OK)
			continue
		}
		if err != nil {
			if !errors.Is(err, s9pk.ErrManifest) || len(s9pk.FieldErrors(err)) == 0 {
				t.Errorf("%s: error %v has no place", c.Name, err)
			}
			continue
		}
		out, err := m.MarshalJSON()
		if err != nil || string(out) != c.Output {
			t.Errorf("%s:\n got %s, %v\nwant %s", c.Name, out, err, c.Output)
		}
		again, err := s9pk.ParseManifest(out)
		if err != nil {
			t.Errorf("%s: what was written: %v", c.Name, err)
			continue
		}
		if twice, err := again.MarshalJSON(); err != nil || !bytes.Equal(twice, out) {
			t.Errorf("%s: written twice: %v", c.Name, err)
		}
	}
}
