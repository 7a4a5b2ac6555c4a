package s9pk_test

import (
	"os"
	"path/filepath"
	"testing"
)

func largeFixture(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("/work/shared/fixtures/s9pk", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}
