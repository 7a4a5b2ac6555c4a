package patchdb_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/selfstead/selfstead/patchdb"
)

func Example() {
	dir, err := os.MkdirTemp("", "patchdb-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	ctx := context.Background()

	db, err := patchdb.Open(filepath.Join(dir, "state.db"), patchdb.Options{})
	if err != nil {
		panic(err)
	}
	defer db.Close()

	type Settings struct {
		Name string   `json:"name"`
		Tags []string `json:"tags"`
	}
	db.Put(ctx, "", map[string]any{"settings": Settings{Name: "anna", Tags: []string{"a", "b", "c"}}})

	sub, err := db.Subscribe("/settings/tags", patchdb.SubscribeOptions{})
	if err != nil {
		panic(err)
	}
	first, _ := sub.Next(ctx)
	fmt.Printf("%d %s\n", first.Dump.ID, first.Dump.Value)

	patchdb.Mutate(ctx, db, "/settings", func(s *Settings) error {
		s.Tags = []string{"a", "new", "b", "c"}
		return nil
	})
	next, _ := sub.Next(ctx)
	fmt.Printf("%d %s %s %s\n", next.Revision.ID, next.Revision.Patch[0].Op, next.Revision.Patch[0].Path, next.Revision.Patch[0].Value)
	// Output:
	// 1 ["a","b","c"]
	// 2 add /1 "new"
}
