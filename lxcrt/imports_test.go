package lxcrt

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestImports states what each room may import beside the standard library, so
// that the library stands alone.
func TestImports(t *testing.T) {
	const self = "github.com/selfstead/selfstead/"
	// x/sys only in files for one system, since the package builds on others too.
	linux := []string{"golang.org/x/sys/unix"}
	allowed := map[string][]string{
		".": {self + "lxcrt/internal/launcher", self + "lxcrt/internal/liblxc",
			"github.com/google/nftables", "github.com/google/nftables/expr", "github.com/google/nftables/binaryutil",
			"github.com/jsimonetti/rtnetlink/v2", "github.com/jsimonetti/rtnetlink/v2/driver", "github.com/mdlayher/netlink"},
		"internal/liblxc":   {"github.com/lxc/go-lxc", "C"}, // the only room with cgo
		"internal/launcher": {self + "lxcrt/internal/liblxc"},
		"image":             {"github.com/klauspost/compress/zstd"},
		"logs":              {"github.com/fsnotify/fsnotify"}, // inotify
		"lxcrttest":         {self + "lxcrt", self + "lxcrt/internal/liblxc", self + "lxcrt/logs"},
	}
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) != ".go" {
			return err
		}
		may, known := allowed[filepath.ToSlash(filepath.Dir(path))]
		if !known || strings.HasSuffix(path, "_test.go") {
			return nil // guest is a program of its own and states its own
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
	next:
		for _, i := range f.Imports {
			name, err := strconv.Unquote(i.Path.Value)
			if err != nil {
				return err
			}
			if name != "C" && !strings.Contains(strings.SplitN(name, "/", 2)[0], ".") {
				continue
			}
			for _, m := range may {
				if name == m {
					continue next
				}
			}
			for _, m := range linux {
				if name == m && strings.HasSuffix(path, "_linux.go") {
					continue next
				}
			}
			t.Errorf("%s imports %s", path, name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
