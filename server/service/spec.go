package service

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"github.com/selfstead/selfstead/lxcrt"
	"github.com/selfstead/selfstead/lxcrt/guest/node"
	"github.com/selfstead/selfstead/s9pk"
	"github.com/selfstead/selfstead/server/state"
)

// Places inside a container (StartOS service containers).
const (
	insidePackage = "/usr/lib/startos/package"
	insideMedia   = "/media/startos"
	insideRPC     = insideMedia + "/rpc"
	insideLog     = "/run/selfstead/log"
)

// initCommand is PID 1 of every container: our init, which runs the Node
// runtime.
var initCommand = append([]string{"/usr/bin/start-container", "init", "--log", insideLog, "--", "/usr/bin/node"}, node.Args...)

// containerSpec is what a package's container is made from.
func containerSpec(l layout, layers []lxcrt.Layer, gateway4, gateway6 netip.Addr, guid string, keep state.ServiceKeep, b *bundle) lxcrt.Spec {
	id := b.Manifest.ID
	s := lxcrt.Spec{
		Name: guid, Layers: layers,
		IDs:   lxcrt.IDRange{Base: keep.IDBase, Count: idCount},
		Addr4: parseAddr(keep.Addr4), Addr6: parseAddr(keep.Addr6),
		Init: initCommand,
		Env:  []string{"LANG=C.UTF-8", "container=lxc", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
	}
	machine := sha256.Sum256([]byte("machine-id " + guid))
	resolv := fmt.Sprintf("nameserver %s\n", gateway4)
	if !gateway4.IsValid() {
		resolv = fmt.Sprintf("nameserver %s\n", gateway6)
	}
	s.Files = []lxcrt.File{
		{Path: "/etc/hostname", Data: []byte(guid + "\n")},
		{Path: "/etc/hosts", Data: []byte(hostsFile(guid))},
		{Path: "/etc/machine-id", Data: []byte(hex.EncodeToString(machine[:16]) + "\n")},
		{Path: "/etc/resolv.conf", Data: []byte(resolv)},
		{Path: "/etc/default/locale", Data: []byte("LANG=C.UTF-8\n")},
	}
	s.Mounts = []lxcrt.Mount{
		{Target: insideRPC, Kind: lxcrt.MountBind, Source: l.rpc(guid), NoSuid: true, NoDev: true},
		{Target: insideLog, Kind: lxcrt.MountBind, Source: l.log(id), IDMap: true, NoSuid: true, NoDev: true},
		squashfs(insidePackage, b.Path, b.JS),
	}
	if b.Assets.present() {
		s.Mounts = append(s.Mounts, squashfs(insideMedia+"/assets", b.Path, b.Assets))
	}
	for _, v := range slices.Sorted(slices.Values(b.Manifest.Volumes)) {
		s.Mounts = append(s.Mounts, lxcrt.Mount{
			Target: insideMedia + "/volumes/" + v, Kind: lxcrt.MountBind, Source: filepath.Join(l.data(id), v),
			IDMap: true, NoSuid: true, NoDev: true,
		})
	}
	for _, name := range sortedKeys(b.Images) {
		img := b.Images[name]
		at := insideMedia + "/images/" + name
		s.Mounts = append(s.Mounts, squashfs(at, b.Path, img.FS))
		s.Files = append(s.Files, lxcrt.File{Path: at + ".env", Data: img.Env}, lxcrt.File{Path: at + ".json", Data: img.JSON})
	}
	s.Devices = devices(b.Manifest)
	return s
}

func squashfs(target, file string, r region) lxcrt.Mount {
	return lxcrt.Mount{
		Target: target, Kind: lxcrt.MountSquashfs, Source: file, Offset: r.Offset, Size: r.Size,
		IDMap: true, ReadOnly: true, NoDev: true,
	}
}

// hostsFile is /etc/hosts of a container and of its subcontainers.
func hostsFile(guid string) string {
	return "127.0.0.1 localhost\n127.0.1.1 " + guid + "\n::1 localhost ip6-localhost ip6-loopback\nff02::1 ip6-allnodes\nff02::2 ip6-allrouters\n"
}

// devices are the host's device nodes that the manifest asks for.
func devices(m *s9pk.Manifest) []string {
	var found []string
	add := func(patterns ...string) {
		for _, p := range patterns {
			paths, _ := filepath.Glob(p)
			for _, path := range paths {
				_ = filepath.WalkDir(path, func(p string, d fs.DirEntry, err error) error {
					if err == nil && d.Type()&os.ModeDevice != 0 {
						found = append(found, p)
					}
					return nil
				})
			}
		}
	}
	if m.HardwareAcceleration {
		add("/dev/dri", "/dev/nvidia*", "/dev/kfd")
	}
	if m.UserspaceFilesystems {
		add("/dev/fuse")
	}
	if m.VirtualNetworking {
		add("/dev/net/tun")
	}
	slices.Sort(found)
	return slices.Compact(found)
}

// fingerprint names what a container is made from; the Spec is one with the
// name "any" and without limits, which change while it runs. Equal fingerprints
// mean that making it anew would change nothing.
func fingerprint(s lxcrt.Spec) string {
	text, _ := json.Marshal(s)
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:16])
}
