package image

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// An aptSource is one archive of Debian as the machine's apt knows it.
type aptSource struct {
	uri, release, signedBy string
	components             []string
}

// line is the source in the one-line form of sources.list(5).
func (s aptSource) line() string {
	options := ""
	if s.signedBy != "" {
		options = "[signed-by=" + s.signedBy + "] "
	}
	return "deb " + options + s.uri + " " + s.release + " " + strings.Join(s.components, " ")
}

// debianReleases are the suite names under which Debian's own archive is found
// on a machine, oldest first, then the aliases.
var debianReleases = []string{"buster", "bullseye", "bookworm", "trixie", "forky", "sid",
	"oldoldstable", "oldstable", "stable", "testing", "unstable"}

// hostSources are Debian's archives on this machine, for the given suite: the
// machine's own mirrors and keys with the release replaced, so that a build works
// behind any mirror or proxy. Archives of others are left out. An empty result
// means that the machine has none (it may not be Debian), and that mmdebstrap's
// default is the one to use.
func hostSources(ctx context.Context, suite string) ([]aptSource, error) {
	entries, err := aptEntries()
	if err != nil {
		return nil, err
	}
	foreign := foreignSites(ctx)
	var found []aptSource
	for _, e := range entries {
		base, kind, _ := strings.Cut(e.release, "-")
		if !slices.Contains(debianReleases, base) || !slices.Contains(e.components, "main") {
			continue
		}
		if kind != "" && kind != "updates" && kind != "security" {
			continue // backports and proposed updates are not what a plain suite means
		}
		if foreign[strings.TrimSuffix(e.uri, "/")] {
			continue
		}
		if s := filepath.Base(e.signedBy); e.signedBy != "" && !strings.HasPrefix(s, "debian-archive") {
			continue
		}
		if kind != "" && (suite == "sid" || suite == "unstable") {
			continue
		}
		e.release = suite
		if kind != "" {
			e.release += "-" + kind
		}
		e.components = []string{"main"}
		if !slices.ContainsFunc(found, func(s aptSource) bool { return s.line() == e.line() }) {
			found = append(found, e)
		}
	}
	if !slices.ContainsFunc(found, func(s aptSource) bool { return s.release == suite }) {
		return nil, nil
	}
	return found, nil
}

// foreignSites are the archives whose own Release file, fetched by an earlier
// apt-get update, says that they are not Debian's.
func foreignSites(ctx context.Context) map[string]bool {
	out, err := exec.CommandContext(ctx, "apt-get", "indextargets",
		"--format", "$(ORIGIN)|$(REPO_URI)", "Created-By: Packages").Output()
	if err != nil {
		return nil // no apt, or no lists yet: the keys and suites decide
	}
	foreign := map[string]bool{}
	for line := range strings.Lines(string(out)) {
		origin, uri, _ := strings.Cut(strings.TrimSpace(line), "|")
		if origin != "Debian" && origin != "" && !strings.HasPrefix(origin, "$(") {
			foreign[strings.TrimSuffix(uri, "/")] = true
		}
	}
	return foreign
}

// aptEntries reads sources.list and sources.list.d in both of their forms.
func aptEntries() ([]aptSource, error) {
	dir := "/etc/apt"
	names := []string{filepath.Join(dir, "sources.list")}
	for _, pattern := range []string{"*.list", "*.sources"} {
		more, err := filepath.Glob(filepath.Join(dir, "sources.list.d", pattern))
		if err != nil {
			return nil, fmt.Errorf("image: %w", err)
		}
		names = append(names, more...)
	}
	var all []aptSource
	for _, name := range names {
		b, err := os.ReadFile(name)
		if os.IsNotExist(err) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("image: %w", err)
		}
		if strings.HasSuffix(name, ".sources") {
			all = append(all, parseDeb822(string(b))...)
		} else {
			all = append(all, parseOneLine(string(b))...)
		}
	}
	return all, nil
}

// parseOneLine reads the form "deb [options] uri suite component…".
func parseOneLine(text string) []aptSource {
	var found []aptSource
	sc := bufio.NewScanner(strings.NewReader(text))
	for sc.Scan() {
		line, _, _ := strings.Cut(sc.Text(), "#")
		rest, ok := strings.CutPrefix(strings.TrimSpace(line), "deb ")
		if !ok {
			continue
		}
		var s aptSource
		if options, after, ok := strings.Cut(strings.TrimSpace(rest), "]"); ok && strings.HasPrefix(options, "[") {
			for _, o := range strings.Fields(options[1:]) {
				if v, ok := strings.CutPrefix(o, "signed-by="); ok {
					s.signedBy = v
				}
			}
			rest = after
		}
		f := strings.Fields(rest)
		if len(f) < 3 {
			continue
		}
		s.uri, s.release, s.components = f[0], f[1], f[2:]
		found = append(found, s)
	}
	return found
}

// parseDeb822 reads stanzas of "Field: value". A key written into the stanza
// itself cannot be passed on in the one-line form, so such a source is skipped.
func parseDeb822(text string) []aptSource {
	var found []aptSource
	fields := map[string]string{}
	flush := func() {
		defer clear(fields)
		inline := strings.Contains(fields["signed-by"], "BEGIN PGP")
		if strings.EqualFold(fields["enabled"], "no") || inline ||
			!slices.Contains(strings.Fields(fields["types"]), "deb") {
			return
		}
		for _, uri := range strings.Fields(fields["uris"]) {
			for _, suite := range strings.Fields(fields["suites"]) {
				found = append(found, aptSource{uri: uri, release: suite,
					signedBy: strings.TrimSpace(fields["signed-by"]), components: strings.Fields(fields["components"])})
			}
		}
	}
	last := ""
	sc := bufio.NewScanner(strings.NewReader(text))
	for sc.Scan() {
		line := sc.Text()
		switch {
		case strings.HasPrefix(line, "#"):
		case strings.TrimSpace(line) == "":
			flush()
		case line[0] == ' ' || line[0] == '\t':
			fields[last] += " " + strings.TrimSpace(line)
		default:
			name, value, _ := strings.Cut(line, ":")
			last = strings.ToLower(strings.TrimSpace(name))
			fields[last] = strings.TrimSpace(value)
		}
	}
	flush()
	return found
}
