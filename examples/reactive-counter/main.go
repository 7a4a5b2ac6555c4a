// Command reactive-counter counts in a document and shows the patches that
// every subscriber hears.
//
//	reactive-counter counter.db 3
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"strconv"

	"github.com/selfstead/selfstead/patchdb"
)

type counter struct {
	Count int `json:"count"`
}

func main() {
	if len(os.Args) != 3 {
		log.Fatal("usage: reactive-counter FILE TIMES")
	}
	times, err := strconv.Atoi(os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	if err := run(context.Background(), os.Args[1], times); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, file string, times int) error {
	db, err := patchdb.Open(file, patchdb.Options{})
	if err != nil {
		return err
	}
	defer db.Close()
	// A new file holds null; give it its first shape.
	_, err = db.Update(ctx, func(tx *patchdb.Tx) error {
		if tx.Exists("/count") {
			return nil
		}
		return tx.Put("", counter{})
	})
	if err != nil {
		return err
	}
	sub, err := db.Subscribe("/count", patchdb.SubscribeOptions{})
	if err != nil {
		return err
	}
	defer sub.Close()
	e, err := sub.Next(ctx) // what is there now
	if err != nil {
		return err
	}
	fmt.Printf("dump      %d: %s\n", e.Dump.ID, e.Dump.Value)
	for range times {
		if _, err := patchdb.Mutate(ctx, db, "", func(c *counter) error { c.Count++; return nil }); err != nil {
			return err
		}
		if e, err = sub.Next(ctx); err != nil { // then every change
			return err
		}
		patch, err := json.Marshal(e.Revision.Patch)
		if err != nil {
			return err
		}
		fmt.Printf("revision  %d: %s\n", e.Revision.ID, patch)
	}
	return nil
}
