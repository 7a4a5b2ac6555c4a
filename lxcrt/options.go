package lxcrt

import (
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"strings"
)

// Options tune New. Dir, CgroupParent, LinkPrefix and Table have to be set, so
// that two runtimes on one machine never take each other's things.
type Options struct {
	// Dir is the state folder; a container's things stand in Dir/<name>. It is
	// made if missing, for root alone.
	Dir string
	// CgroupParent is the one cgroup, below the root of each tree, in which all of
	// this runtime's containers stand.
	CgroupParent string
	// LinkPrefix begins the name of every container's link on the host; eight
	// characters are added, so it has 1 to 7.
	LinkPrefix string
	// Subnet4 and Subnet6 hold the containers' addresses; the first address of
	// each is the gateway. A zero prefix leaves the family out.
	Subnet4, Subnet6 netip.Prefix
	// Table is the name of this runtime's own nftables table (family inet).
	Table string
	// MTU of the links; 0 takes the smallest of the links with a default route.
	MTU int
	// Launcher is the binary that is executed as helper; it has to link this
	// package. Empty is the caller's own.
	Launcher string
	// Guest is a static program (image.Guest builds ours) that every container then
	// has at GuestPath, read-only; it is taken as it stands at each start. Empty
	// leaves containers without.
	Guest string
	// UnpackImages has squashfs images unpacked into folders below Dir even where
	// the kernel can id-map squashfs. Where it cannot, that is done anyway.
	UnpackImages bool
	// Logger takes what nobody is there to be told; nil means silent.
	Logger *slog.Logger
}

func (o Options) check() error {
	bad := func(format string, a ...any) error {
		return &Error{Op: "options", Err: fmt.Errorf("%w: %s", ErrInvalid, fmt.Sprintf(format, a...))}
	}
	if !filepath.IsAbs(o.Dir) || strings.ContainsAny(o.Dir, "\n:\"'") {
		return bad("dir %q", o.Dir)
	}
	if o.Guest != "" && !filepath.IsAbs(o.Guest) {
		return bad("guest %q", o.Guest)
	}
	if !validName(o.CgroupParent) {
		return bad("cgroup parent %q", o.CgroupParent)
	}
	if len(o.LinkPrefix) < 1 || len(o.LinkPrefix) > 7 || strings.ContainsAny(o.LinkPrefix, "/ :%") {
		return bad("link prefix %q", o.LinkPrefix)
	}
	if !validName(o.Table) {
		return bad("table %q", o.Table)
	}
	if o.Subnet4.IsValid() && (!o.Subnet4.Addr().Is4() || o.Subnet4.Bits() > 30) {
		return bad("subnet %s", o.Subnet4)
	}
	if o.Subnet6.IsValid() && (!o.Subnet6.Addr().Is6() || o.Subnet6.Addr().Is4In6() || o.Subnet6.Bits() > 126) {
		return bad("subnet %s", o.Subnet6)
	}
	if o.MTU < 0 || o.MTU > 0 && o.MTU < 576 || o.MTU > 65535 {
		return bad("mtu %d", o.MTU)
	}
	return nil
}

// gateway is the first address of a subnet.
func gateway(p netip.Prefix) netip.Addr {
	if !p.IsValid() {
		return netip.Addr{}
	}
	return p.Masked().Addr().Next()
}

// GuestPath is where a container has Options.Guest.
const GuestPath = "/.guest"

// withGuest is the Spec with the guest program in its place.
func (s Spec) withGuest(program string) Spec {
	if program != "" {
		s.Mounts = append([]Mount{{Target: GuestPath, Kind: MountBind, Source: program, File: true, ReadOnly: true, NoSuid: true, NoDev: true}}, s.Mounts...)
	}
	return s
}
