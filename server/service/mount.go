package service

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/selfstead/selfstead/lxcrt"
	"github.com/selfstead/selfstead/patchdb"
	"github.com/selfstead/selfstead/server/service/effect"
	"github.com/selfstead/selfstead/server/state"
	"golang.org/x/sys/unix"
)

// MountVolume implements effect.Host. The other package must be a declared
// dependency, the volume one of its own, and the path stays inside the volume
// whatever links that package put there.
func (r *instance) MountVolume(ctx context.Context, location string, t effect.MountTarget) error {
	pkg := string(t.PackageID)
	if pkg != r.u.id {
		if !r.declares(pkg) {
			return effect.Fail(effect.KindInvalidRequest, "package %s does not declare the dependency %s", r.u.id, pkg)
		}
		m, err := patchdb.Get[heading](r.u.m.db, state.PackagePointer(pkg, "stateInfo", "manifest"))
		if err != nil {
			return effect.Fail(effect.KindNotFound, "package %s is not installed", pkg)
		}
		if !slices.Contains(m.Volumes, t.VolumeID) {
			return effect.Fail(effect.KindNotFound, "package %s has no volume %s", pkg, t.VolumeID)
		}
	} else if !slices.Contains(r.bundle.Manifest.Volumes, t.VolumeID) {
		return effect.Fail(effect.KindNotFound, "package %s has no volume %s", pkg, t.VolumeID)
	}
	volume, err := r.u.m.dir.volume(pkg, t.VolumeID)
	if err != nil {
		return err
	}
	sub := ""
	if t.Subpath != nil {
		sub = *t.Subpath
	}
	make := makeFolder
	if t.ReadOnly {
		make = makeNothing
	}
	return r.bind(ctx, volume, sub, make, lxcrt.Mount{
		Target: location, Recursive: true, ReadOnly: t.ReadOnly, Replace: true,
		Compose: compose(t.IDMap),
	})
}

func compose(list []effect.IDMap) []lxcrt.IDMapEntry {
	var out []lxcrt.IDMapEntry
	for _, e := range list {
		out = append(out, lxcrt.IDMapEntry{From: e.FromID, To: e.ToID, Range: e.Range})
	}
	return out
}

// declares reports whether the package may use what belongs to other: only what
// its signed manifest says, which its owner could read, counts.
func (r *instance) declares(other string) bool {
	_, ok := r.bundle.Manifest.Dependencies[other]
	return ok
}

// What bind makes of a source that is missing.
type missingSource int

const (
	makeNothing missingSource = iota
	makeFolder
	makeFile
)

// bind mounts a path of a folder that a service writes to. The path is resolved
// inside the folder and held open, so that it cannot be exchanged on the way.
func (r *instance) bind(ctx context.Context, folder, sub string, missing missingSource, m lxcrt.Mount) error {
	for _, part := range strings.Split(sub, "/") {
		if part == ".." {
			return effect.Fail(effect.KindInvalidRequest, "subpath %q leads out of the volume", sub)
		}
	}
	sub = strings.TrimPrefix(path.Clean("/"+sub), "/")
	source, err := openBelow(folder, sub)
	if errors.Is(err, fs.ErrNotExist) && missing != makeNothing {
		if err := r.write(func() error { return makeBelow(folder, sub, missing) }); err != nil {
			return effect.Fail(effect.KindFilesystem, "%s: %s", sub, err)
		}
		source, err = openBelow(folder, sub)
	}
	if err != nil {
		return effect.Fail(effect.KindFilesystem, "%s: %s", sub, err)
	}
	defer source.Close()
	info, err := source.Stat()
	if err != nil {
		return err
	}
	if !info.IsDir() && !info.Mode().IsRegular() {
		return effect.Fail(effect.KindFilesystem, "%s is neither a folder nor a file", sub)
	}
	if m.Target, err = r.target(m.Target); err != nil {
		return err
	}
	m.Kind, m.Source = lxcrt.MountBind, fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), source.Fd())
	m.IDMap, m.NoSuid, m.NoDev, m.File = true, true, true, !info.IsDir()
	if err := r.c.Mount(ctx, m); err != nil {
		return effect.Fail(effect.KindFilesystem, "mount on %s: %s", m.Target, err)
	}
	return nil
}

// makeBelow makes a folder, or an empty file, inside a folder.
func makeBelow(folder, sub string, what missingSource) error {
	root, err := os.OpenRoot(folder)
	if err != nil {
		return err
	}
	defer root.Close()
	if what == makeFolder {
		return root.MkdirAll(sub, 0o755)
	}
	if err := root.MkdirAll(path.Dir(sub), 0o755); err != nil {
		return err
	}
	// Exclusive: what the service has put there meanwhile may be a pipe, whose
	// opening would wait for ever.
	f, err := root.OpenFile(sub, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return f.Close()
}

// target is where a mount goes. Below a subcontainer the links of its image
// count as they do inside it, so they are resolved here; the runtime sees to it
// that nothing leads out of the container.
func (r *instance) target(location string) (string, error) {
	location = path.Clean("/" + location)
	rest, ok := strings.CutPrefix(location, insideSubs+"/")
	guid, below, deeper := strings.Cut(rest, "/")
	if !ok || !deeper || !guidPattern.MatchString(guid) {
		return location, nil
	}
	root, err := unix.Open("/proc/"+strconv.Itoa(r.c.PID())+"/root", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", errGone
	}
	defer unix.Close(root)
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	sub, err := unix.Openat2(root, strings.TrimPrefix(insideSubs, "/")+"/"+guid, &how)
	if err != nil {
		return "", effect.Fail(effect.KindNotFound, "there is no subcontainer %s", guid)
	}
	defer unix.Close(sub)
	plain, err := unlinked(sub, below)
	if err != nil {
		return "", effect.Fail(effect.KindFilesystem, "%s: %s", location, err)
	}
	return path.Join(insideSubs, guid, plain), nil
}

// unlinked is the path without symbolic links, with root as "/". What does not
// exist is taken as it is.
func unlinked(root int, p string) (string, error) {
	done, todo := "/", strings.Split(p, "/")
	for links := 0; len(todo) > 0; {
		part := todo[0]
		todo = todo[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			done = path.Dir(done)
			continue
		}
		next := path.Join(done, part)
		buf := make([]byte, unix.PathMax)
		n, err := readlinkIn(root, next, buf)
		if err != nil {
			done = next // no link, or not there
			continue
		}
		if links++; links > 40 {
			return "", unix.ELOOP
		}
		link := string(buf[:n])
		if path.IsAbs(link) {
			done = "/"
		}
		todo = append(strings.Split(link, "/"), todo...)
	}
	return done, nil
}

// readlinkIn reads a link below root whose parents are no links.
func readlinkIn(root int, p string, buf []byte) (int, error) {
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	fd, err := unix.Openat2(root, strings.TrimPrefix(p, "/"), &how)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	return unix.Readlinkat(fd, "", buf)
}

// openBelow opens a path inside a folder, with links resolved as if the folder
// were the root.
func openBelow(folder, sub string) (*os.File, error) {
	dir, err := unix.Open(folder, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: folder, Err: err}
	}
	if sub == "" {
		return os.NewFile(uintptr(dir), folder), nil
	}
	defer unix.Close(dir)
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	fd, err := unix.Openat2(dir, sub, &how)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: sub, Err: err}
	}
	return os.NewFile(uintptr(fd), sub), nil
}

// OwnMount implements effect.Host for the container's own program: id-mapped
// binds, which the kernel refuses from inside. Only what the package owns can
// be the source, and the target is resolved inside the container.
func (r *instance) OwnMount(ctx context.Context, source, target string, readOnly, file bool, idmap []effect.IDMap) error {
	source = path.Clean("/" + source)
	volume, below := "", ""
	if rest, ok := strings.CutPrefix(source, insideMedia+"/volumes/"); ok {
		volume, below, _ = strings.Cut(rest, "/")
	}
	if volume == "" || !slices.Contains(r.bundle.Manifest.Volumes, volume) {
		return effect.Fail(effect.KindInvalidRequest, "%s is not on a volume of %s; only volumes are mounted with other ids", source, r.u.id)
	}
	make := makeFolder
	if file {
		make = makeFile
	}
	return r.bind(ctx, filepath.Join(r.u.m.dir.data(r.u.id), volume), below, make, lxcrt.Mount{
		Target: target, Recursive: true, ReadOnly: readOnly, Compose: compose(idmap),
	})
}
