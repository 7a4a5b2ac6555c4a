package service

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/selfstead/selfstead/lxcrt"
	"github.com/selfstead/selfstead/patchdb"
	"github.com/selfstead/selfstead/server/service/effect"
	"github.com/selfstead/selfstead/server/state"
	"golang.org/x/sys/unix"
)

// instance is the effect.Host of its package.
var _ effect.Host = (*instance)(nil)

const insideSubs = insideMedia + "/subcontainers"

// maxSubs bounds the subcontainers of one container.
const maxSubs = 512

// CreateFS implements effect.Host: an overlay over the image, its scratch layer
// below the container's own folder.
func (r *instance) CreateFS(ctx context.Context, name, _ string) (string, string, error) {
	img, ok := r.bundle.Images[name]
	if !ok {
		return "", "", effect.Fail(effect.KindNotFound, "package %s has no image %s", r.u.id, name)
	}
	guid := effect.NewGUID()
	r.mu.Lock()
	full := len(r.subs) >= maxSubs
	if !full {
		r.subs[guid] = name
	}
	r.mu.Unlock()
	if full {
		return "", "", effect.Fail(effect.KindInvalidRequest, "package %s has %d subcontainers, no more are allowed", r.u.id, maxSubs)
	}
	err := r.createFS(ctx, guid, img)
	if err != nil {
		r.mu.Lock()
		delete(r.subs, guid)
		r.mu.Unlock()
		_ = os.RemoveAll(r.subFolder(guid))
		return "", "", effect.Fail(effect.KindFilesystem, "subcontainer of image %s: %s", name, err)
	}
	return insideSubs + "/" + guid, guid, nil
}

func (r *instance) createFS(ctx context.Context, guid string, img image) error {
	dir := r.subFolder(guid)
	owner := int(r.keep.IDBase)
	for _, d := range []string{dir, filepath.Join(dir, "upper"), filepath.Join(dir, "upper", "etc")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
		if d != dir {
			if err := os.Chown(d, owner, owner); err != nil {
				return err
			}
		}
	}
	for name, text := range map[string]string{"hostname": r.guid + "\n", "hosts": hostsFile(r.guid)} {
		file := filepath.Join(dir, "upper", "etc", name)
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			return err
		}
		if err := os.Chown(file, owner, owner); err != nil {
			return err
		}
	}
	return r.c.Mount(ctx, lxcrt.Mount{
		Target: insideSubs + "/" + guid, Kind: lxcrt.MountOverlay,
		Lower:    []lxcrt.Layer{{Path: r.bundle.Path, Offset: img.FS.Offset, Size: img.FS.Size}},
		UpperDir: dir, NoDev: true,
	})
}

// guidPattern is what a subcontainer may be called.
var guidPattern = regexp.MustCompile(`^[A-Z2-7]{32}$`)

// DestroyFS implements effect.Host.
func (r *instance) DestroyFS(ctx context.Context, guid string) error {
	r.mu.Lock()
	_, ok := r.subs[guid]
	delete(r.subs, guid)
	r.mu.Unlock()
	if !ok || !guidPattern.MatchString(guid) {
		r.log.Warn("no such subcontainer", "subcontainer", guid)
		return nil
	}
	at := insideSubs + "/" + guid
	r.killLeader(at)
	errs := []error{}
	if err := r.c.Unmount(ctx, at); err != nil && !errors.Is(err, lxcrt.ErrNotFound) {
		errs = append(errs, err)
	}
	errs = append(errs, os.RemoveAll(r.subFolder(guid)))
	if err := errors.Join(errs...); err != nil {
		return effect.Fail(effect.KindFilesystem, "subcontainer %s: %s", guid, err)
	}
	return nil
}

// killLeader kills what runs in a subcontainer: PID 1 of the PID namespace
// whose proc is mounted in it.
func (r *instance) killLeader(at string) {
	root, err := unix.Open("/proc/"+strconv.Itoa(r.c.PID())+"/root", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer unix.Close(root)
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	proc, err := unix.Openat2(root, strings.TrimPrefix(at, "/")+"/proc", &how)
	if err != nil {
		return
	}
	defer unix.Close(proc)
	var fs unix.Statfs_t
	if unix.Fstatfs(proc, &fs) != nil || fs.Type != unix.PROC_SUPER_MAGIC {
		return
	}
	leader, err := namespaceLeader(proc, r.keep.IDBase)
	if err != nil {
		r.log.Warn("processes of a subcontainer", "err", err)
		return
	}
	if leader > 0 {
		_ = unix.Kill(leader, unix.SIGKILL)
	}
}

// namespaceLeader finds the process, as this process numbers it, that is PID 1
// of the namespace of a mounted proc; 0 when there is none.
func namespaceLeader(proc int, base uint32) (int, error) {
	var want unix.Stat_t
	if err := unix.Fstatat(proc, "1/ns/pid", &want, 0); err != nil {
		return 0, nil
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return 0, err
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		var is unix.Stat_t
		if unix.Stat("/proc/"+e.Name()+"/ns/pid", &is) != nil || is.Ino != want.Ino || is.Dev != want.Dev {
			continue
		}
		var owner unix.Stat_t
		if unix.Stat("/proc/"+e.Name(), &owner) != nil || owner.Uid < base && owner.Uid != 0 {
			continue
		}
		if innermostPID(e.Name()) == 1 {
			return pid, nil
		}
	}
	return 0, nil
}

func innermostPID(pid string) int {
	text, err := os.ReadFile("/proc/" + pid + "/status")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if list, ok := strings.CutPrefix(line, "NSpid:"); ok {
			fields := strings.Fields(list)
			if len(fields) < 3 { // here, in the container, in the subcontainer
				return 0
			}
			n, _ := strconv.Atoi(fields[len(fields)-1])
			return n
		}
	}
	return 0
}

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
	return r.bind(ctx, volume, sub, !t.ReadOnly, lxcrt.Mount{
		Target: path.Clean("/" + location), Recursive: true, ReadOnly: t.ReadOnly, Replace: true,
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

// declares reports whether the package may use what belongs to other.
func (r *instance) declares(other string) bool {
	if _, ok := r.bundle.Manifest.Dependencies[other]; ok {
		return true
	}
	_, err := patchdb.Get[json.RawMessage](r.u.m.db, state.PackagePointer(r.u.id, "currentDependencies", other))
	return err == nil
}

// bind mounts a path of a folder that a service writes to. The path is resolved
// inside the folder and held open, so that it cannot be exchanged on the way.
func (r *instance) bind(ctx context.Context, folder, sub string, create bool, m lxcrt.Mount) error {
	for _, part := range strings.Split(sub, "/") {
		if part == ".." {
			return effect.Fail(effect.KindInvalidRequest, "subpath %q leads out of the volume", sub)
		}
	}
	sub = strings.TrimPrefix(path.Clean("/"+sub), "/")
	source, err := openBelow(folder, sub)
	if errors.Is(err, fs.ErrNotExist) && create {
		root, rerr := os.OpenRoot(folder)
		if rerr != nil {
			return rerr
		}
		rerr = root.MkdirAll(sub, 0o755)
		root.Close()
		if rerr != nil {
			return effect.Fail(effect.KindFilesystem, "%s: %s", sub, rerr)
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
	m.Kind, m.Source = lxcrt.MountBind, fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), source.Fd())
	m.IDMap, m.NoSuid, m.NoDev, m.File = true, true, true, !info.IsDir()
	if err := r.c.Mount(ctx, m); err != nil {
		return effect.Fail(effect.KindFilesystem, "mount on %s: %s", m.Target, err)
	}
	return nil
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
func (r *instance) OwnMount(ctx context.Context, source, target string, readOnly bool, idmap []effect.IDMap) error {
	source = path.Clean("/" + source)
	volume, below := "", ""
	if rest, ok := strings.CutPrefix(source, insideMedia+"/volumes/"); ok {
		volume, below, _ = strings.Cut(rest, "/")
	}
	if volume == "" || !slices.Contains(r.bundle.Manifest.Volumes, volume) {
		return effect.Fail(effect.KindInvalidRequest, "%s is not on a volume of %s; only volumes are mounted with other ids", source, r.u.id)
	}
	return r.bind(ctx, filepath.Join(r.u.m.dir.data(r.u.id), volume), below, true, lxcrt.Mount{
		Target: path.Clean("/" + target), Recursive: true, ReadOnly: readOnly, Compose: compose(idmap),
	})
}

// Rebuild implements effect.Host.
func (r *instance) Rebuild() { r.u.requestRebuild() }

// InitProgress implements effect.Host.
func (r *instance) InitProgress(p json.RawMessage) {
	if fn := r.initProgress.Load(); fn != nil {
		(*fn)(p)
	}
}

// BackupProgress implements effect.Host; no backup runs yet.
func (r *instance) BackupProgress(json.RawMessage) {}

// SyncNetwork implements effect.Host.
func (r *instance) SyncNetwork(ctx context.Context) error { return r.u.m.net.Sync(ctx) }

// OSIP implements effect.Host.
func (r *instance) OSIP() netip.Addr { return r.u.m.net.OSIP() }

// ContainerIP implements effect.Host.
func (r *instance) ContainerIP(ctx context.Context, pkg string) (netip.Addr, bool, error) {
	if pkg == r.u.id {
		return parseAddr(r.keep.Addr4), true, nil
	}
	u := r.u.m.unit(pkg)
	if u == nil {
		return netip.Addr{}, false, nil
	}
	select {
	case <-u.settled():
	case <-ctx.Done():
		return netip.Addr{}, false, ctx.Err()
	}
	run := u.instance()
	if run == nil || !run.alive() {
		return netip.Addr{}, false, nil
	}
	addr := parseAddr(run.keep.Addr4)
	return addr, addr.IsValid(), nil
}

// ActionInput implements effect.Host.
func (r *instance) ActionInput(ctx context.Context, pkg, action, eventID string, prefill json.RawMessage) (json.RawMessage, error) {
	return r.u.m.actionInput(ctx, pkg, action, eventID, prefill)
}

// RunAction implements effect.Host.
func (r *instance) RunAction(ctx context.Context, pkg, action, eventID string, input json.RawMessage) (json.RawMessage, error) {
	return r.u.m.runAction(ctx, pkg, action, eventID, input)
}

// CurrentInput implements effect.Host.
func (r *instance) CurrentInput(ctx context.Context, pkg, action string) (json.RawMessage, bool) {
	u := r.u.m.unit(pkg)
	if u == nil {
		return nil, false
	}
	return u.currentInput(ctx, action)
}

// RecheckTasks implements effect.Host.
func (r *instance) RecheckTasks(action string) { r.u.recheckSoon(action) }

// Dependency implements effect.Host.
func (r *instance) Dependency(_ context.Context, id string) (json.RawMessage, *string) {
	if d, ok := r.bundle.dependencies[id]; ok {
		return d.Title, d.Icon
	}
	return json.RawMessage("null"), nil
}

// DataVersion implements effect.Host.
func (r *instance) DataVersion() (*string, error) { return r.u.m.dir.dataVersion(r.u.id) }

// SetDataVersion implements effect.Host.
func (r *instance) SetDataVersion(v *string) error { return r.u.m.dir.setDataVersion(r.u.id, v) }

// Watch implements effect.Host.
func (r *instance) Watch(id int64, p patchdb.Pointer) { r.u.m.watch.add(r, id, p) }

// Forget implements effect.Host.
func (r *instance) Forget(only, except []int64) { r.u.m.watch.forget(r, only, except) }
