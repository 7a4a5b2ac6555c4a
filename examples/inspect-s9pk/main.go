// Command inspect-s9pk proves a package and says who signed it and what is in
// it.
//
//	inspect-s9pk hello-world.s9pk
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"text/tabwriter"

	"github.com/selfstead/selfstead/s9pk"
)

func main() {
	if len(os.Args) != 2 {
		log.Fatal("usage: inspect-s9pk FILE")
	}
	if err := run(context.Background(), os.Args[1]); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, path string) error {
	a, err := s9pk.OpenFile(path, s9pk.Options{}) // header, signature and tables are proven
	if err != nil {
		return err
	}
	defer a.Close()
	if err := a.Verify(ctx, nil); err != nil { // and now every body
		return err
	}
	m, err := a.Manifest(ctx)
	if err != nil {
		return err
	}
	fmt.Printf("%s %s, signed by %x\n", m.ID, m.Version, a.Signer())
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	for _, f := range a.Files() {
		fmt.Fprintf(w, "%s\t%d bytes\n", f.Path, f.Size)
	}
	return w.Flush()
}
