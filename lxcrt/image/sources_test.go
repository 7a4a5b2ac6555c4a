package image

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestSources(t *testing.T) {
	etc := t.TempDir()
	if err := os.Mkdir(filepath.Join(etc, "sources.list.d"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"sources.list": "# comment\ndeb https://mirror.example/debian bookworm main contrib # end\n" +
			"deb-src https://mirror.example/debian bookworm main\n" +
			"deb [ arch=amd64 signed-by=/usr/share/keyrings/own.gpg ] https://mirror.example/security bookworm-security main\n",
		"sources.list.d/third.list":      "deb https://third.example/apt stable-third main\ndeb https://third.example/flat ./\n",
		"sources.list.d/off.list.save":   "deb https://off.example/debian bookworm main\n",
		"sources.list.d/debian.sources":  "Types: deb deb-src\nURIs: http://a.example/debian http://b.example/debian\nSuites: bookworm bookworm-updates\n bookworm-backports\nComponents: main\nSigned-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abc\n -----END PGP PUBLIC KEY BLOCK-----\n\nTypes: deb\nURIs: http://c.example/debian\nSuites: bookworm\nComponents: main\nEnabled: no\n",
		"sources.list.d/ignored.sources": "Types: deb-src\nURIs: http://d.example/debian\nSuites: bookworm\nComponents: main\n",
	} {
		if err := os.WriteFile(filepath.Join(etc, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	found, err := hostSources(etc)
	if err != nil {
		t.Fatal(err)
	}
	wanted, err := rewrite(found, "bookworm", "trixie")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	got, err := lines(wanted, dir)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.ReplaceAll(strings.Join(got, "\n"), dir, "DIR")
	text = strings.ReplaceAll(text, "[signed-by="+archiveKeyring+"] ", "")
	want := `deb https://mirror.example/debian trixie main
deb [signed-by=DIR/key-1.asc] http://a.example/debian trixie main
deb [signed-by=DIR/key-2.asc] http://b.example/debian trixie main
deb [signed-by=/usr/share/keyrings/own.gpg] https://mirror.example/security trixie-security main
deb [signed-by=DIR/key-4.asc] http://a.example/debian trixie-updates main
deb [signed-by=DIR/key-5.asc] http://b.example/debian trixie-updates main`
	if text != want {
		t.Errorf("got\n%s\nwant\n%s", text, want)
	}
	key, err := os.ReadFile(filepath.Join(dir, "key-1.asc"))
	if err != nil || string(key) != "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nabc\n-----END PGP PUBLIC KEY BLOCK-----\n" {
		t.Errorf("key %q (%v)", key, err)
	}
	// What a container of the image gets has no keys and no passwords of the host's.
	inside, err := aptSources(append(found, source{uri: "https://me:secret@own.example/debian", suite: "bookworm", components: []string{"main"}}), "bookworm", "trixie")
	if err != nil {
		t.Fatal(err)
	}
	want = ""
	for _, l := range []string{"https://mirror.example/debian trixie", "http://a.example/debian trixie", "http://b.example/debian trixie",
		"https://mirror.example/security trixie-security", "http://a.example/debian trixie-updates", "http://b.example/debian trixie-updates"} {
		want += "deb [signed-by=" + archiveKeyring + "] " + l + " main\n"
	}
	if string(inside) != want {
		t.Errorf("got\n%s\nwant\n%s", inside, want)
	}
	if _, err := rewrite(nil, "bookworm", "trixie"); err == nil {
		t.Error("no source at all was enough")
	}
}

func TestAcquire(t *testing.T) {
	got := filterAcquire("Acquire \"\";\nAcquire::IndexTargets::deb::x \"1\";\nAcquire::http::Proxy \"http://p.example:3142\";\nAcquire::Languages:: \"en\";\nAcquire::Retries \"3\";\nAPT::X \"y\";\n")
	if want := "Acquire::http::Proxy \"http://p.example:3142\";\nAcquire::Retries \"3\";\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
