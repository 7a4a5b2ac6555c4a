package guest

import (
	"path/filepath"
	"strconv"
	"strings"
)

// Folders of a service container.
const (
	subcontainers = "/media/startos/subcontainers/" // a root for each
	volumes       = "/media/startos/volumes/"       // a folder for each
	assets        = "/media/startos/assets"
	backup        = "/media/startos/backup"
)

// IDMap is one run of ids that a mount shows under other numbers.
type IDMap struct {
	FromID uint32 `json:"fromId"`
	ToID   uint32 `json:"toId"`
	Range  uint32 `json:"range"`
}

// bindMount is a mount to make; it is also the parameter object of the host's
// method selfstead.bind-mount.
type bindMount struct {
	Source    string  `json:"source"`
	Target    string  `json:"target"`
	Recursive bool    `json:"recursive"`
	ReadOnly  bool    `json:"readonly"`
	File      bool    `json:"file"`
	IDMap     []IDMap `json:"idmap"`
}

func parseBindMount(args []string) (*bindMount, error) {
	m := &bindMount{}
	o := newOptions()
	o.value("source", "", &m.Source)
	o.value("target", "", &m.Target)
	o.flag("recursive", &m.Recursive)
	o.flag("readonly", &m.ReadOnly)
	o.flag("file", &m.File)
	o.each("idmap", "", func(v string) error {
		e, err := parseIDMap(v)
		if err == nil {
			m.IDMap = append(m.IDMap, e)
		}
		return err
	})
	rest, err := o.parse(args)
	switch {
	case err != nil:
		return nil, err
	case len(rest) > 0:
		return nil, usagef("bind-mount: unexpected operand %q", rest[0])
	case m.Source == "" || m.Target == "":
		return nil, usagef("bind-mount: --source and --target are required")
	}
	return m, nil
}

// parseIDMap reads from:to[:range]; the range is 1 by default.
func parseIDMap(s string) (IDMap, error) {
	parts := strings.Split(s, ":")
	if len(parts) != 2 && len(parts) != 3 {
		return IDMap{}, usagef("idmap %q: want from:to or from:to:range", s)
	}
	n := [3]uint32{2: 1}
	for i, p := range parts {
		v, err := strconv.ParseUint(p, 10, 32)
		if err != nil {
			return IDMap{}, usagef("idmap %q: %q is not an id", s, p)
		}
		n[i] = uint32(v)
	}
	if n[2] == 0 {
		return IDMap{}, usagef("idmap %q: the range is empty", s)
	}
	return IDMap{FromID: n[0], ToID: n[1], Range: n[2]}, nil
}

// splitRoot divides a path into the root that its links belong to and the rest
// below it: a subcontainer's root, a volume or the assets for paths inside one,
// else "/". What a service's workloads put there must not lead out of it.
func splitRoot(path string) (root, rest string) {
	path = filepath.Clean("/" + path)
	for _, parent := range []string{subcontainers, volumes} {
		if below, ok := strings.CutPrefix(path, parent); ok {
			name, rest, _ := strings.Cut(below, "/")
			return parent + name, rest
		}
	}
	for _, root := range []string{assets, backup} {
		if rest, ok := strings.CutPrefix(path, root+"/"); ok {
			return root, rest
		}
	}
	return "/", strings.TrimPrefix(path, "/")
}

func bindMountApplet(c *call, args []string) error {
	m, err := parseBindMount(args)
	if err != nil {
		return err
	}
	if len(m.IDMap) > 0 {
		_, err := c.client().Call("selfstead.bind-mount", m)
		return err
	}
	return m.mount()
}
