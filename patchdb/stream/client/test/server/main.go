// Command server serves a database for the TypeScript client's tests: it prints
// its URL, and puts each number that it reads into the document.
package main

import (
	"bufio"
	"context"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"

	"github.com/selfstead/selfstead/patchdb"
	"github.com/selfstead/selfstead/patchdb/stream"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	dir, err := os.MkdirTemp("", "patchdb-client-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	db, err := patchdb.Open(filepath.Join(dir, "a.db"), patchdb.Options{})
	if err != nil {
		return err
	}
	defer db.Close()
	srv := httptest.NewServer(stream.Handler(db, stream.Options{Buffer: 8}))
	defer srv.Close()
	fmt.Println(srv.URL)
	ctx := context.Background()
	sum := 0
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		n, err := strconv.Atoi(in.Text())
		if err != nil {
			return err
		}
		sum += n
		_, err = db.Update(ctx, func(tx *patchdb.Tx) error {
			var list []int
			if tx.Exists("/state/list") {
				if err := tx.Get("/state/list", &list); err != nil {
					return err
				}
			}
			// The newest goes to the front, so that elements move.
			list = append([]int{n}, list...)
			list = list[:min(len(list), 20)]
			for p, v := range map[patchdb.Pointer]any{"/state/list": list, "/state/sum": sum, "/state/last": n} {
				if err := tx.PutAll(p, v); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}
