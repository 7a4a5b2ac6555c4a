package pack

import (
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestImports: packages can be made and fetched without the server, images built
// without packages, and the reader of images needs neither.
func TestImports(t *testing.T) {
	const module = "github.com/selfstead/selfstead/"
	for dir, may := range map[string][]string{
		".":           {"s9pk", "s9pk/merkle", "s9pk/pack/image", "s9pk/pack/service", "s9pk/remote", "s9pk/validate"},
		"service":     {"s9pk/exver", "s9pk/pack/image"},
		"image":       {"s9pk/squashfs"},
		"../squashfs": nil,
		"../remote":   {"s9pk", "s9pk/merkle"},
	} {
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		require.NoError(t, err)
		require.NotEmpty(t, files)
		for _, name := range files {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
			require.NoError(t, err)
			for _, imp := range f.Imports {
				path, err := strconv.Unquote(imp.Path.Value)
				require.NoError(t, err)
				if inner, ok := strings.CutPrefix(path, module); ok && !slices.Contains(may, inner) {
					t.Errorf("%s imports %s", name, path)
				}
			}
		}
	}
}
