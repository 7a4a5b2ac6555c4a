package image

import (
	"bufio"
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
	"strconv"
	"strings"
	"time"
)

// ErrTool is wrapped when a program that a source needs is missing or fails.
var ErrTool = errors.New("image: tool")

// docs are what nobody reads inside a container; the licences in /usr/share/doc
// stay. They are taken out of the finished tree, not by dpkg's path-exclude, which
// variant extract would not heed.
var docs = []string{"man", "info", "groff", "locale", "lintian", "doc-base"} // of /usr/share

// fromDebian asks the archives for their state, which names the image, and has
// mmdebstrap install the packages when it is not in the cache.
func (b *builder) fromDebian(ctx context.Context, d *Debian) (*origin, error) {
	want := *d
	if want.Suite == "" {
		want.Suite = "trixie"
	}
	if want.Variant == "" {
		want.Variant = "essential"
	}
	var sources []aptSource
	var err error
	if len(want.Sources) > 0 {
		sources = parseOneLine(strings.Join(want.Sources, "\n"))
	} else if sources, err = hostSources(ctx, want.Suite); err != nil {
		return nil, err
	}
	spec, err := json.Marshal(want)
	if err != nil {
		return nil, fmt.Errorf("image: %w", err)
	}
	from := &origin{spec: "debian:" + string(spec), config: Config{Env: defaultEnv}, offline: true}
	if len(sources) > 0 {
		state, date, err := b.archiveState(ctx, sources)
		switch {
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case err != nil:
			b.Logger.Warn("the state of the package archives is not known; building anew", "err", err)
		default:
			from.key, from.date = state, date
		}
	}
	var rootfs *os.File
	from.fill = func(ctx context.Context, t *tree) error {
		name := filepath.Join(b.work, "debian.tar")
		if err := b.mmdebstrap(ctx, &want, sources, from.date, name); err != nil {
			return err
		}
		if rootfs, err = os.Open(name); err != nil {
			return fmt.Errorf("image: %w", err)
		}
		if err := t.addTar(ctx, rootfs, b.work, false); err != nil {
			return err
		}
		return t.neutral(want.Docs)
	}
	from.close = func() {
		if rootfs != nil {
			rootfs.Close()
		}
	}
	return from, nil
}

// archiveState fetches the release files of the sources through apt, so that its
// proxies and credentials are used, and sums up the package lists that they name.
// The date is that of the first source, the suite itself.
func (b *builder) archiveState(ctx context.Context, sources []aptSource) (key string, date time.Time, err error) {
	sum := sha256.New()
	for i, s := range sources {
		uri := strings.TrimSuffix(s.uri, "/") + "/dists/" + s.release + "/InRelease"
		name := filepath.Join(b.work, "InRelease-"+strconv.Itoa(i))
		cmd := exec.CommandContext(ctx, "/usr/lib/apt/apt-helper", "-o", "Acquire::Retries=2", "download-file", uri, name)
		if out, err := cmd.CombinedOutput(); err != nil {
			return "", date, fmt.Errorf("%w: apt-helper: %w: %s", ErrTool, err, lastLines(out))
		}
		raw, err := os.ReadFile(name)
		if err != nil {
			return "", date, fmt.Errorf("image: %w", err)
		}
		lists, when := readRelease(raw, ociArch(b.Arch))
		if lists == "" || when.IsZero() {
			return "", date, fmt.Errorf("image: %s lists no packages for %s", uri, ociArch(b.Arch))
		}
		if i == 0 {
			date = when
			fmt.Fprintln(sum, when.Unix())
		}
		fmt.Fprintln(sum, s.line(), lists)
	}
	return hex.EncodeToString(sum.Sum(nil)), date, nil
}

// readRelease takes from a Release file its date and the digests of the package
// lists of component main.
func readRelease(raw []byte, arch string) (lists string, date time.Time) {
	section := ""
	sc := bufio.NewScanner(bytes.NewReader(raw))
	for sc.Scan() {
		line := sc.Text()
		if !strings.HasPrefix(line, " ") {
			name, value, _ := strings.Cut(line, ":")
			section = name
			if name == "Date" {
				// RFC 1123 with a zone that Go would not place elsewhere than UTC
				if t, err := time.Parse(time.RFC1123, strings.TrimSpace(value)); err == nil {
					date = t
				}
			}
			continue
		}
		f := strings.Fields(line)
		if section == "SHA256" && len(f) == 3 &&
			(f[2] == "main/binary-"+arch+"/Packages" || f[2] == "main/binary-all/Packages") {
			lists += f[0] + " "
		}
	}
	return lists, date
}

func (b *builder) mmdebstrap(ctx context.Context, d *Debian, sources []aptSource, date time.Time, out string) error {
	exe, err := exec.LookPath("mmdebstrap")
	if err != nil {
		return fmt.Errorf("%w: mmdebstrap is not installed (Debian's package of that name has it)", ErrTool)
	}
	arch := ociArch(b.Arch)
	args := []string{"--format=tar", "--variant=" + d.Variant, "--architectures=" + arch, `--aptopt=Acquire::Retries "2"`}
	if len(d.Packages) > 0 {
		args = append(args, "--include="+strings.Join(d.Packages, ","))
	}
	args = append(args, d.Suite, out)
	for _, s := range sources {
		args = append(args, s.line())
	}
	cmd := exec.CommandContext(ctx, exe, args...)
	if !b.SourceDate.IsZero() {
		date = b.SourceDate
	}
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive",
		"SOURCE_DATE_EPOCH="+strconv.FormatInt(max(date.Unix(), 1), 10))
	if os.Geteuid() == 0 {
		// The root may be larger than /tmp. For others mmdebstrap works under ids of
		// a user namespace, which cannot reach into their folders.
		cmd.Env = append(cmd.Env, "TMPDIR="+b.work)
	}
	cmd.WaitDelay = 30 * time.Second
	// It cleans up what it mounted when it is interrupted, not when it is killed.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return fmt.Errorf("image: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("%w: mmdebstrap: %w", ErrTool, err)
	}
	said := b.follow(stderr)
	if err := cmd.Wait(); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return fmt.Errorf("%w: mmdebstrap of %s for %s: %w: %s", ErrTool, d.Suite, b.Arch, err, said)
	}
	return nil
}

// neutral takes out of a Debian root what came from the machine that built it, so
// that it says nothing about that machine and is the same everywhere: its host
// name, its resolver, its mirrors, device files; and documentation.
func (t *tree) neutral(keepDocs bool) error {
	etc, err := t.dir([]string{"etc"}, true)
	if err != nil {
		return err
	}
	for _, name := range []string{"hostname", "resolv.conf"} {
		delete(etc.children, name) // mountPoints puts an empty one there
	}
	if apt := etc.children["apt"]; apt != nil {
		delete(apt.children, "sources.list")
		if d := apt.children["sources.list.d"]; d != nil {
			clear(d.children)
		}
	}
	if dev := t.root.children["dev"]; dev != nil {
		clear(dev.children)
	}
	if keepDocs {
		return nil
	}
	share, err := t.dir([]string{"usr", "share"}, false)
	if share == nil || err != nil {
		return err
	}
	for _, name := range docs {
		delete(share.children, name)
	}
	doc := share.children["doc"]
	if doc == nil {
		return nil
	}
	for name, d := range doc.children {
		if !d.isDir() {
			continue // a link to the folder of the package that holds the licence
		}
		for file := range d.children {
			if file != "copyright" {
				delete(d.children, file)
			}
		}
		if len(d.children) == 0 {
			delete(doc.children, name)
		}
	}
	return nil
}

// follow passes a tool's steps on as they come and keeps what explains a failure.
func (b *builder) follow(r io.Reader) string {
	var kept []string
	sc := bufio.NewScanner(r)
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		line := strings.TrimSpace(sc.Text())
		if line == "" {
			continue
		}
		b.Logger.Debug("mmdebstrap", "line", line)
		if step, ok := strings.CutPrefix(line, "I: "); ok {
			if step, ok = strings.CutSuffix(step, "..."); ok { // what takes time
				b.Progress(Progress{Phase: step})
			}
			continue
		}
		if kept = append(kept, line); len(kept) > 12 {
			kept = kept[1:]
		}
	}
	return strings.Join(kept, "; ")
}

// lastLines is the end of what a program printed, on one line.
func lastLines(out []byte) string {
	out = bytes.TrimSpace(out)
	if len(out) > 1000 {
		out = out[len(out)-1000:]
	}
	return strings.ReplaceAll(string(out), "\n", "; ")
}
