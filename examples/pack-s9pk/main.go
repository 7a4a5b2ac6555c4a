// Command pack-s9pk packs a service project for one architecture and signs it
// with a new key.
//
//	pack-s9pk ../services/hello-world hello-world.s9pk x86_64
package main

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/selfstead/selfstead/s9pk"
	"github.com/selfstead/selfstead/s9pk/pack"
)

func main() {
	if len(os.Args) != 4 {
		log.Fatal("usage: pack-s9pk PROJECT FILE ARCH")
	}
	if err := run(context.Background(), os.Args[1], os.Args[2], os.Args[3]); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, project, file, arch string) error {
	key, err := s9pk.GenerateKey() // keep it for the next version: see s9pk.MarshalPrivateKey
	if err != nil {
		return err
	}
	path, err := pack.Pack(ctx, pack.Options{Dir: project, Output: file, Key: key, Arch: []string{arch}})
	if err != nil {
		return err
	}
	fmt.Println(path)
	return nil
}
