package guest

import (
	"go/parser"
	"go/token"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The program is copied into every container and started for every process:
// only the standard library and x/sys, nothing with work at package level, and
// x/sys only where the file name says Linux, so that the rest builds anywhere.
func TestImports(t *testing.T) {
	t.Parallel()
	for _, pattern := range []string{"*.go", "node/*.go"} {
		files, err := filepath.Glob(pattern)
		require.NoError(t, err)
		require.NotEmpty(t, files)
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
			require.NoError(t, err)
			for _, spec := range f.Imports {
				path, err := strconv.Unquote(spec.Path.Value)
				require.NoError(t, err)
				if first, _, _ := strings.Cut(path, "/"); !strings.Contains(first, ".") {
					continue
				}
				assert.Equal(t, "golang.org/x/sys/unix", path, file)
				assert.True(t, strings.HasSuffix(file, "_linux.go"), "%s imports %s", file, path)
			}
		}
	}
}
