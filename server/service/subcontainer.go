package service

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/selfstead/selfstead/lxcrt"
	"github.com/selfstead/selfstead/server/service/effect"
	"golang.org/x/sys/unix"
)

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
	guid := effect.GUIDFor(r.guid, effect.CallID(ctx))
	r.mu.Lock()
	_, again := r.subs[guid]
	full := len(r.subs) >= maxSubs
	if !full {
		r.subs[guid] = name
	}
	r.mu.Unlock()
	if again && r.mounted(insideSubs+"/"+guid) { // the server before made it and was cut off
		return insideSubs + "/" + guid, guid, nil
	}
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
	// The SDK waits a tenth of a second for proc/1 of the leader that it launches
	// and then never uses the subcontainer again. On a busy machine that is too
	// short: the folder is there from the start, and it is start-container's exec
	// that waits for the leader.
	for _, d := range []string{dir, filepath.Join(dir, "upper"), filepath.Join(dir, "upper", "etc"), filepath.Join(dir, "upper", "proc"), filepath.Join(dir, "upper", "proc", "1")} {
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

// mounted reports whether something is mounted at a path inside.
func (r *instance) mounted(at string) bool {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(r.c.PID()) + "/mountinfo")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 4 && f[4] == at {
			return true
		}
	}
	return false
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
	r.removeMountpoint(guid)
	errs = append(errs, os.RemoveAll(r.subFolder(guid)))
	if err := errors.Join(errs...); err != nil {
		return effect.Fail(effect.KindFilesystem, "subcontainer %s: %s", guid, err)
	}
	return nil
}

// removeMountpoint removes the empty folder that the overlay stood on.
func (r *instance) removeMountpoint(guid string) {
	subs, err := r.openInside(insideSubs)
	if err != nil {
		return
	}
	defer unix.Close(subs)
	_ = unix.Unlinkat(subs, guid, unix.AT_REMOVEDIR)
}

// openInside opens a folder of the container; links in it lead nowhere else.
func (r *instance) openInside(p string) (int, error) {
	root, err := unix.Open("/proc/"+strconv.Itoa(r.c.PID())+"/root", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(root)
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	return unix.Openat2(root, strings.TrimPrefix(p, "/"), &how)
}

// killLeader kills what runs in a subcontainer: PID 1 of the PID namespace
// whose proc is mounted in it.
func (r *instance) killLeader(at string) {
	proc, err := r.openInside(at + "/proc")
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
