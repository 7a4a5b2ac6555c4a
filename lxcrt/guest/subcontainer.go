package guest

import (
	"os"
	"strconv"
	"strings"
)

// termSize is a terminal's size; the pixel members may be zero.
type termSize struct {
	Rows, Cols, X, Y uint16
}

func parseTermSize(s string) (*termSize, error) {
	parts := strings.Split(s, ":")
	if len(parts) != 2 && len(parts) != 4 {
		return nil, usagef("pty size %q: want rows:cols or rows:cols:xpixels:ypixels", s)
	}
	var n [4]uint16
	for i, p := range parts {
		v, err := strconv.ParseUint(p, 10, 16)
		if err != nil {
			return nil, usagef("pty size %q: %q is not a number up to 65535", s, p)
		}
		n[i] = uint16(v)
	}
	return &termSize{Rows: n[0], Cols: n[1], X: n[2], Y: n[3]}, nil
}

func (t *termSize) String() string {
	n := []uint16{t.Rows, t.Cols, t.X, t.Y}
	parts := make([]string, len(n))
	for i, v := range n {
		parts[i] = strconv.Itoa(int(v))
	}
	return strings.Join(parts, ":")
}

// subcontainerOptions are shared by the four subcontainer applets.
type subcontainerOptions struct {
	ForceTTY, ForceStderrTTY bool
	Size                     *termSize // nil: the current terminal's
	Env                      []string  // K=V
	EnvFile, Workdir, User   string
	Inner                    bool // started by a wrapper, see parentFD
	told                     bool // that signals may come
	Root                     string
	Command                  []string

	stopped <-chan os.Signal // tells execCommand not to start the command any more
}

func parseSubcontainer(args []string) (*subcontainerOptions, error) {
	o := &subcontainerOptions{}
	p := newOptions()
	p.flag("force-tty", &o.ForceTTY)
	p.flag("inner", &o.Inner)
	p.flag("force-stderr-tty", &o.ForceStderrTTY)
	p.each("pty-size", "", func(v string) (err error) { o.Size, err = parseTermSize(v); return err })
	p.each("env", "e", func(v string) error {
		if k, _, ok := strings.Cut(v, "="); !ok || k == "" {
			return usagef("--env %q: want NAME=VALUE", v)
		}
		o.Env = append(o.Env, v)
		return nil
	})
	p.value("env-file", "", &o.EnvFile)
	p.value("workdir", "w", &o.Workdir)
	p.value("user", "u", &o.User)
	rest, err := p.parse(args)
	if err != nil {
		return nil, err
	}
	if len(rest) == 0 || rest[0] == "" {
		return nil, usagef("subcontainer: the root folder is missing")
	}
	o.Root, o.Command = rest[0], rest[1:]
	if len(o.Command) > 0 && o.Command[0] == "--" {
		o.Command = o.Command[1:]
	}
	return o, nil
}

// args renders the options for the inner half of an applet. The terminal is
// the outer half's business, so its options are left out.
func (o *subcontainerOptions) args(applet string) []string {
	args := []string{"subcontainer", applet, "--inner"}
	for _, e := range o.Env {
		args = append(args, "--env="+e)
	}
	for name, v := range map[string]string{"env-file": o.EnvFile, "workdir": o.Workdir, "user": o.User} {
		if v != "" {
			args = append(args, "--"+name+"="+v)
		}
	}
	args = append(args, "--", o.Root)
	if len(o.Command) > 0 {
		args = append(append(args, "--"), o.Command...)
	}
	return args
}
