package image

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// source is one place that apt fetches packages from.
type source struct {
	uri, suite string
	components []string
	signedBy   string // path of a keyring, fingerprints, or empty
	key        string // a key given in place
}

// hostSources reads the host's package sources as apt does, in both formats
// (sources.list(5)). apt's own listing does not serve: it names only sources
// whose lists have been fetched already.
func hostSources(etc string) ([]source, error) {
	var all []source
	files := []string{filepath.Join(etc, "sources.list")}
	more, err := os.ReadDir(filepath.Join(etc, "sources.list.d"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, e := range more {
		files = append(files, filepath.Join(etc, "sources.list.d", e.Name()))
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		switch filepath.Ext(f) {
		case ".list":
			all = append(all, parseOneLine(string(b))...)
		case ".sources":
			all = append(all, parseDeb822(string(b))...)
		}
	}
	return all, nil
}

// parseOneLine reads "deb [options] uri suite components...".
func parseOneLine(text string) []source {
	var all []source
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		rest, ok := strings.CutPrefix(strings.TrimSpace(line), "deb")
		if !ok || rest == "" || rest[0] != ' ' && rest[0] != '\t' {
			continue
		}
		var s source
		rest = strings.TrimSpace(rest)
		if options, after, ok := strings.Cut(rest, "]"); ok && strings.HasPrefix(rest, "[") {
			for o := range strings.FieldsSeq(options[1:]) {
				if k, v, _ := strings.Cut(o, "="); strings.EqualFold(k, "signed-by") {
					s.signedBy = v
				}
			}
			rest = after
		}
		f := strings.Fields(rest)
		if len(f) < 3 {
			continue
		}
		s.uri, s.suite, s.components = f[0], f[1], f[2:]
		all = append(all, s)
	}
	return all
}

// parseDeb822 reads stanzas of "Field: value" with continued lines.
func parseDeb822(text string) []source {
	var all []source
	field := map[string]string{}
	last := ""
	flush := func() {
		defer func() { field, last = map[string]string{}, "" }()
		if !slices.Contains(strings.Fields(field["types"]), "deb") {
			return
		}
		if e := strings.ToLower(strings.TrimSpace(field["enabled"])); e == "no" || e == "false" || e == "0" || e == "off" {
			return
		}
		signed, key := strings.TrimSpace(field["signed-by"]), ""
		if strings.Contains(signed, "BEGIN PGP PUBLIC KEY BLOCK") {
			signed, key = "", signed+"\n"
		}
		for uri := range strings.FieldsSeq(field["uris"]) {
			for suite := range strings.FieldsSeq(field["suites"]) {
				all = append(all, source{uri, suite, strings.Fields(field["components"]), signed, key})
			}
		}
	}
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n")
		switch {
		case strings.HasPrefix(line, "#"):
		case strings.TrimSpace(line) == "":
			flush()
		case line[0] == ' ' || line[0] == '\t':
			if last != "" {
				l := strings.TrimSpace(line)
				if l == "." { // an empty line, in place
					l = ""
				}
				field[last] += "\n" + l
			}
		default:
			k, v, ok := strings.Cut(line, ":")
			if !ok {
				continue
			}
			last = strings.ToLower(strings.TrimSpace(k))
			field[last] = strings.TrimSpace(v)
		}
	}
	flush()
	return all
}

// archiveKeyring is where Debian keeps the keys of all its suites.
const archiveKeyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

// rewrite turns the host's Debian sources into those of another suite. codename
// is the host's own; only its main, updates and security parts are taken, since
// others (backports, third parties) say nothing about the wanted suite.
func rewrite(all []source, codename, suite string) ([]source, error) {
	part := map[string]string{}
	for _, own := range []string{codename, suite, "stable", "oldstable", "testing"} {
		if own != "" {
			for _, p := range []string{"", "-updates", "-security"} {
				part[own+p] = suite + p
			}
		}
	}
	var out []source
	main := false
	for _, s := range all {
		wanted := part[strings.Trim(s.suite, "/")]
		if wanted == "" || !slices.Contains(s.components, "main") || strings.ContainsAny(s.uri, "[]") {
			continue
		}
		s.suite, s.components = wanted, []string{"main"}
		if !slices.ContainsFunc(out, func(o source) bool { return o.uri == s.uri && o.suite == s.suite }) {
			out = append(out, s)
		}
		main = main || wanted == suite
	}
	if !main {
		return nil, fmt.Errorf("%w: a Debian package source (apt on this host has none for %q)", ErrNotSupported, codename)
	}
	slices.SortStableFunc(out, func(a, b source) int { return strings.Compare(a.suite, b.suite) })
	return out, nil
}

// lines renders sources in the one-line format; keys given in place are written
// to files in dir. Sources that name no key get Debian's keyring.
func lines(all []source, dir string) ([]string, error) {
	var out []string
	for i, s := range all {
		signed := s.signedBy
		if s.key != "" {
			signed = filepath.Join(dir, fmt.Sprintf("key-%d.asc", i))
			if err := os.WriteFile(signed, []byte(s.key), 0o644); err != nil {
				return nil, err
			}
		}
		if signed == "" {
			if _, err := os.Stat(archiveKeyring); err == nil {
				signed = archiveKeyring
			}
		}
		option := ""
		if signed = strings.Join(strings.Fields(signed), ","); signed != "" {
			option = "[signed-by=" + signed + "] "
		}
		out = append(out, "deb "+option+s.uri+" "+s.suite+" "+strings.Join(s.components, " "))
	}
	return out, nil
}

// AptSources is /etc/apt/sources.list for a container of an image that Build made
// of a suite ("" is the default's): the host's sources for Debian, without keys,
// settings and credentials of its own. An image has none, so that it is the same
// whichever mirror its packages came from.
func AptSources(suite string) ([]byte, error) {
	o := Options{Cache: "/", Suite: suite}
	if err := o.settle(); err != nil {
		return nil, err
	}
	found, err := hostSources("/etc/apt")
	if err != nil {
		return nil, err
	}
	return aptSources(found, hostCodename(), o.Suite)
}

func aptSources(all []source, codename, suite string) ([]byte, error) {
	wanted, err := rewrite(all, codename, suite)
	if err != nil {
		return nil, err
	}
	var out []byte
	for _, s := range wanted {
		u, err := url.Parse(s.uri)
		if err != nil || u.User != nil {
			continue
		}
		out = fmt.Appendf(out, "deb [signed-by=%s] %s %s main\n", archiveKeyring, s.uri, s.suite)
	}
	return out, nil
}

// hostCodename reads VERSION_CODENAME of os-release.
func hostCodename() string {
	b, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return ""
	}
	for l := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(l), "VERSION_CODENAME="); ok {
			return strings.Trim(v, `"'`)
		}
	}
	return ""
}

// aptAcquire returns the host's settings for fetching: proxies, retries,
// certificates, dates. Lists of index targets and languages are left out.
func aptAcquire() (string, error) {
	out, err := exec.Command("apt-config", "dump", "Acquire").Output()
	if err != nil {
		return "", fmt.Errorf("read the host's apt settings: %w", err)
	}
	return filterAcquire(string(out)), nil
}

func filterAcquire(dump string) string {
	var b strings.Builder
	for l := range strings.Lines(dump) {
		name, _, _ := strings.Cut(l, " ")
		name = strings.ToLower(name)
		if !strings.HasPrefix(name, "acquire::") {
			continue
		}
		drop := false
		for _, p := range []string{"indextargets", "cdrom", "languages", "changelogs", "gzipindexes", "compressiontypes"} {
			drop = drop || strings.HasPrefix(name, "acquire::"+p)
		}
		if !drop {
			b.WriteString(l)
		}
	}
	return b.String()
}

func hostArch() string {
	if out, err := exec.Command("dpkg", "--print-architecture").Output(); err == nil {
		return strings.TrimSpace(string(out))
	}
	if runtime.GOARCH == "386" {
		return "i386"
	}
	return runtime.GOARCH
}
