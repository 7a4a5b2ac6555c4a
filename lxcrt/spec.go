package lxcrt

import (
	"fmt"
	"net/netip"
	"path"
	"strings"
	"syscall"
	"time"
)

// Spec is everything a container is made from. It is plain data: Create keeps a
// copy on disk, and a later process finds the same Spec with Load.
type Spec struct {
	// Name is the LXC name, the host name inside and the folder below
	// Options.Dir: 1 to 63 letters, digits, '-' or '_', beginning with a letter
	// or digit.
	Name string `json:"name"`
	// Layers are the lower layers of the root overlay, topmost first. The
	// writable upper belongs to the container and goes with Destroy.
	Layers []Layer `json:"layers"`
	// UpperSize bounds what the container may write into its root, in bytes: the
	// upper then is an ext4 file system in a file that takes up only what is used.
	// 0 leaves it to the file system of Options.Dir.
	UpperSize int64 `json:"upperSize,omitempty"`
	// IDs maps container ids 0..Count-1 to host ids Base... Count 0 means 65536.
	IDs IDRange `json:"ids"`
	// Addr4 and Addr6 lie inside Options.Subnet4 and Subnet6; a zero address
	// leaves that family out, both zero leave the container with loopback only.
	Addr4 netip.Addr `json:"addr4,omitzero"`
	Addr6 netip.Addr `json:"addr6,omitzero"`
	// Bridge makes the container's link a port of an existing bridge, instead of
	// a routed link of its own. Addr4 and Addr6 then belong to the bridge's
	// networks.
	Bridge *Bridge `json:"bridge,omitempty"`
	// Init is the argv of PID 1 inside. With Options.Guest it may be empty: PID 1
	// then reaps what ends and waits for a signal.
	Init []string `json:"init"`
	// Env is the whole environment of PID 1, as K=V, beside container=lxc.
	Env []string `json:"env,omitempty"`
	// Files are written into the root before the start, owned by container root.
	Files []File `json:"files,omitempty"`
	// Mounts are in place before Init runs.
	Mounts []Mount `json:"mounts,omitempty"`
	// Devices are host device nodes, as /dev/fuse, or folders of them, as /dev/dri,
	// with what is in one at the start; each appears at its own path inside, owned
	// by container root.
	Devices []string `json:"devices,omitempty"`
	// Limits bound what the container can take from the host.
	Limits Limits `json:"limits,omitzero"`
	// Console is a host file that takes PID 1's standard output and error;
	// empty drops them. The file is appended to and never cut.
	Console string `json:"console,omitempty"`
	// Log takes PID 1's output and the console as lines with time and stream, in
	// files of limited size, instead of Console.
	Log *Log `json:"log,omitempty"`
}

// Bridge says how a container stands on a bridge. The rules are those of a routed
// link: it speaks with its own addresses only, reaches other containers by
// declared edges only and the host by the gateway's DNS port only, and what comes
// in is what answers it.
type Bridge struct {
	// Name of a bridge that exists when the container starts. The runtime changes
	// nothing of it but its ports.
	Name string `json:"name"`
	// Net4 and Net6 are the networks on the bridge.
	Net4 netip.Prefix `json:"net4,omitzero"`
	Net6 netip.Prefix `json:"net6,omitzero"`
	// Gateway4 and Gateway6 are where the default routes lead; zero leaves a
	// family without. Where it is the host, the container's address is masqueraded
	// behind the host's.
	Gateway4 netip.Addr `json:"gateway4,omitzero"`
	Gateway6 netip.Addr `json:"gateway6,omitzero"`
}

func (b *Bridge) check(addr4, addr6 netip.Addr) string {
	if b == nil {
		return ""
	}
	if b.Name == "" || len(b.Name) > 15 || strings.ContainsAny(b.Name, "/ :\x00") {
		return fmt.Sprintf("name %q", b.Name)
	}
	if !addr4.IsValid() && !addr6.IsValid() {
		return b.Name + ": no address"
	}
	for _, f := range []struct {
		addr, gate netip.Addr
		net        netip.Prefix
	}{{addr4, b.Gateway4, b.Net4}, {addr6, b.Gateway6, b.Net6}} {
		switch {
		case !f.addr.IsValid():
			if f.gate.IsValid() {
				return fmt.Sprintf("%s: gateway %s without an address", b.Name, f.gate)
			}
		case !f.net.IsValid() || !f.net.Contains(f.addr) || f.addr == f.gate:
			return fmt.Sprintf("%s: address %s in %s", b.Name, f.addr, f.net)
		case f.gate.IsValid() && !f.net.Contains(f.gate):
			return fmt.Sprintf("%s: gateway %s outside of %s", b.Name, f.gate, f.net)
		}
	}
	return ""
}

// Layer is one lower layer: a squashfs file, a squashfs inside a larger file, or
// a directory.
type Layer struct {
	Path string `json:"path"`
	// Offset and Size place a squashfs inside a larger file; Size 0 means up to
	// the end of the file, which is padded as that of a Mount. Both are zero for a
	// directory.
	Offset int64 `json:"offset,omitempty"`
	Size   int64 `json:"size,omitempty"`
	// Plain leaves the layer's owners as they are, instead of mapping them from
	// the container's view into its range.
	Plain bool `json:"plain,omitempty"`
}

// IDRange is the block of host ids that belongs to one container.
type IDRange struct {
	Base  uint32 `json:"base"`
	Count uint32 `json:"count"`
}

// File is a regular file to be written into the root before the start.
type File struct {
	Path string `json:"path"`
	Mode uint32 `json:"mode"` // permission bits; 0 means 0644
	Data []byte `json:"data"`
}

// MountKind says what a Mount puts at its target.
type MountKind string

// The kinds of mounts.
const (
	MountBind     MountKind = "bind"
	MountSquashfs MountKind = "squashfs"
	MountOverlay  MountKind = "overlay"
	MountTmpfs    MountKind = "tmpfs"
)

// Mount is one mount inside a container. Its target is resolved inside the
// container's root, so that no link of the container leads out of it.
type Mount struct {
	// Target is an absolute path inside; what is missing of it is created, owned
	// by container root.
	Target string    `json:"target"`
	Kind   MountKind `json:"kind"`
	// Source is the host path of a bind or the file of a squashfs. That of a
	// writable bind with an IDMap has to stand on a file system mounted nosuid, or
	// below a folder that root alone can enter.
	Source string `json:"source,omitempty"`
	// Offset and Size place a squashfs inside a larger file, at any byte; Size 0
	// means up to the end of the file. A file that ends in the middle of the
	// squashfs's last block of 4 KiB is lengthened with zeros to the end of it.
	Offset int64 `json:"offset,omitempty"`
	Size   int64 `json:"size,omitempty"`
	// Lower are an overlay's lower layers, topmost first. UpperDir is a host
	// folder that gets the folders "upper" and "work"; without it the overlay is
	// read-only.
	Lower    []Layer `json:"lower,omitempty"`
	UpperDir string  `json:"upperDir,omitempty"`
	// TmpfsSize bounds a tmpfs in bytes; 0 leaves the kernel's default. Mode is
	// its permission bits; 0 means 0755.
	TmpfsSize int64  `json:"tmpfsSize,omitempty"`
	Mode      uint32 `json:"mode,omitempty"`
	// IDMap maps owners from the container's view (0..Count-1, as they stand on
	// disk) into the container's range. Without it a bind shows the host's ids.
	// For overlays it is the layers that are mapped, see Layer.Plain.
	IDMap bool `json:"idMap,omitempty"`
	// Compose are entries applied, in order, to the ids on disk before they are
	// mapped into the container's range; a moved id wins over an untouched one,
	// and among moved ones the lowest. Not empty implies IDMap.
	Compose []IDMapEntry `json:"compose,omitempty"`

	ReadOnly bool `json:"readOnly,omitempty"`
	// Recursive takes the mounts below a bind's source along.
	Recursive bool `json:"recursive,omitempty"`
	// File says that a missing target is created as a file, not as a directory.
	// A bind of a file implies it.
	File   bool `json:"file,omitempty"`
	NoSuid bool `json:"noSuid,omitempty"`
	NoDev  bool `json:"noDev,omitempty"`
	// Replace detaches what is mounted on the target before.
	Replace bool `json:"replace,omitempty"`
}

// IDMapEntry moves the ids From..From+Range-1 on disk to To... in the
// container's view.
type IDMapEntry struct {
	From  uint32 `json:"from"`
	To    uint32 `json:"to"`
	Range uint32 `json:"range"`
}

// State of a container.
type State string

// The states. Starting and Stopping are passed through by Start and Stop.
const (
	Stopped  State = "stopped"
	Starting State = "starting"
	Running  State = "running"
	Stopping State = "stopping"
	Frozen   State = "frozen"
	Gone     State = "gone" // after Destroy
)

// ExitStatus says how PID 1 ended.
type ExitStatus struct {
	// Code is the exit code, or -1 when a signal ended it or nothing is known.
	Code int
	// Signal is the signal that ended it, or 0.
	Signal syscall.Signal
	// Known is false when the monitor died before it could record the status.
	Known bool
}

// String is "exit 3", "signal killed" or "unknown".
func (s ExitStatus) String() string {
	switch {
	case !s.Known:
		return "unknown"
	case s.Signal != 0:
		return "signal " + s.Signal.String()
	}
	return fmt.Sprintf("exit %d", s.Code)
}

// StopOptions tunes Stop.
type StopOptions struct {
	// Signal is sent to PID 1 first; 0 means SIGTERM.
	Signal syscall.Signal
	// Grace is how long PID 1 may take; 0 means 10 seconds, negative kills at once.
	Grace time.Duration
}

// Validate says what is wrong with the Spec by itself; that sources exist is
// looked at by Start.
func (s Spec) Validate() error {
	bad := func(format string, a ...any) error {
		return &Error{Op: "spec", Name: s.Name, Err: fmt.Errorf("%w: %s", ErrInvalid, fmt.Sprintf(format, a...))}
	}
	if !validName(s.Name) {
		return bad("name %q", s.Name)
	}
	if len(s.Layers) == 0 {
		return bad("no layer")
	}
	for _, l := range s.Layers {
		if err := l.check(); err != "" {
			return bad("layer %s", err)
		}
	}
	if s.UpperSize != 0 && s.UpperSize < 8<<20 {
		return bad("upper of %d bytes; 8 MiB is the least", s.UpperSize)
	}
	if len(s.Init) == 0 || !path.IsAbs(s.Init[0]) {
		return bad("init needs an absolute program")
	}
	if s.IDs.Base == 0 || uint64(s.IDs.Base)+uint64(s.IDs.count()) > 1<<32 {
		return bad("id range %d+%d", s.IDs.Base, s.IDs.Count)
	}
	if s.Addr4.IsValid() && !s.Addr4.Is4() || s.Addr6.IsValid() && (!s.Addr6.Is6() || s.Addr6.Is4In6() || s.Addr6.Zone() != "") {
		return bad("addresses %v %v", s.Addr4, s.Addr6)
	}
	if why := s.Bridge.check(s.Addr4, s.Addr6); why != "" {
		return bad("bridge %s", why)
	}
	if why := s.Log.check(); why != "" {
		return bad("log %s", why)
	}
	if s.Log != nil && s.Console != "" {
		return bad("log and console")
	}
	for _, e := range s.Env {
		if k, _, ok := strings.Cut(e, "="); !ok || k == "" || strings.ContainsAny(e, "\n\x00") {
			return bad("environment entry %q", e)
		}
	}
	for _, a := range s.Init {
		if strings.ContainsRune(a, 0) {
			return bad("init argument %q", a)
		}
	}
	for _, f := range s.Files {
		if !cleanTarget(f.Path) {
			return bad("file path %q", f.Path)
		}
	}
	for _, m := range s.Mounts {
		if err := m.check(); err != "" {
			return bad("mount %s", err)
		}
	}
	for _, d := range s.Devices {
		if !cleanTarget(d) || !strings.HasPrefix(d, "/dev/") {
			return bad("device %q", d)
		}
	}
	if why := s.Limits.check(); why != "" {
		return bad("%s", why)
	}
	return nil
}

func (l Layer) check() string {
	if !path.IsAbs(l.Path) || l.Offset < 0 || l.Size < 0 {
		return fmt.Sprintf("%q at %d+%d", l.Path, l.Offset, l.Size)
	}
	return ""
}

func (m Mount) check() string {
	if !cleanTarget(m.Target) {
		return fmt.Sprintf("target %q", m.Target)
	}
	switch m.Kind {
	case MountBind, MountSquashfs:
		if !path.IsAbs(m.Source) || m.Offset < 0 || m.Size < 0 {
			return fmt.Sprintf("%s: source %q at %d+%d", m.Target, m.Source, m.Offset, m.Size)
		}
	case MountOverlay:
		if len(m.Lower) == 0 || m.UpperDir != "" && !path.IsAbs(m.UpperDir) {
			return m.Target + ": overlay needs lower layers and an absolute upper folder"
		}
		for _, l := range m.Lower {
			if err := l.check(); err != "" {
				return m.Target + ": layer " + err
			}
		}
	case MountTmpfs:
	default:
		return fmt.Sprintf("%s: kind %q", m.Target, m.Kind)
	}
	for _, e := range m.Compose {
		if e.Range == 0 || uint64(e.From)+uint64(e.Range) > 1<<32 || uint64(e.To)+uint64(e.Range) > 1<<32 {
			return fmt.Sprintf("%s: id entry %+v", m.Target, e)
		}
	}
	return ""
}

func (r IDRange) count() uint32 {
	if r.Count == 0 {
		return 65536
	}
	return r.Count
}

func cleanTarget(p string) bool {
	return len(p) > 1 && path.IsAbs(p) && path.Clean(p) == p && !strings.ContainsRune(p, 0)
}

func validName(n string) bool {
	if n == "" || len(n) > 63 {
		return false
	}
	for i, c := range []byte(n) {
		alnum := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !alnum && (i == 0 || c != '-' && c != '_') {
			return false
		}
	}
	return true
}
