package liblxc

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"strings"
)

// Item is one line of a configuration, in order.
type Item struct{ Key, Value string }

// Marker is the argv[0] and EnvKey the variable under which a binary that links
// this package becomes the launcher.
const (
	Marker = "lxcrt-launcher"
	EnvKey = "LXCRT_LAUNCHER"
)

// Root is where the launcher puts the container's root, in a mount namespace that
// only the monitor sees.
const Root = "/mnt/root"

// Path is liblxc's path for the containers of a state folder. It exists in the
// monitor's mount namespace only; the name of liblxc's command socket is made
// from it, so it differs from one state folder to the next.
func Path(dir string) string {
	h := sha256.Sum256([]byte(dir))
	return "/mnt/" + hex.EncodeToString(h[:8])
}

// ErrUnsupported says that this binary cannot start containers.
var ErrUnsupported = errors.New("built without liblxc (cgo is off, or the tag nolxc is set)")

// Render returns the text of a configuration file. Values are quoted where the
// parser would trim or unquote them.
func Render(items []Item) string {
	var b strings.Builder
	for _, it := range items {
		v := it.Value
		if v != strings.TrimSpace(v) || strings.HasPrefix(v, "'") || strings.HasPrefix(v, `"`) {
			v = `"` + v + `"`
		}
		b.WriteString(it.Key + " = " + v + "\n")
	}
	return b.String()
}
