// Command run-container runs one command in a new container and removes it.
//
//	run-container base.squashfs 'hostname; id; cat /etc/os-release'
package main

import (
	"context"
	"errors"
	"log"
	"net/netip"
	"os"

	"github.com/selfstead/selfstead/lxcrt"
)

func main() {
	if len(os.Args) != 3 {
		log.Fatal("usage: run-container IMAGE SCRIPT")
	}
	if err := run(context.Background(), os.Args[1], os.Args[2]); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, image, script string) (err error) {
	dir, err := os.MkdirTemp("", "run-container-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	rt, err := lxcrt.New(ctx, lxcrt.Options{
		Dir: dir, CgroupParent: "run-container", LinkPrefix: "runc", Table: "run_container",
		Subnet4: netip.MustParsePrefix("10.63.0.0/24"),
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rt.Close()) }()
	c, err := rt.Create(ctx, lxcrt.Spec{
		Name:   "example",
		Layers: []lxcrt.Layer{{Path: image}},
		IDs:    lxcrt.IDRange{Base: 1 << 20},
		Addr4:  netip.MustParseAddr("10.63.0.2"),
		Init:   []string{"/bin/sleep", "infinity"},
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Destroy(ctx)) }()
	if err := c.Start(ctx); err != nil {
		return err
	}
	p, err := c.Exec(ctx, lxcrt.ExecSpec{Argv: []string{"/bin/sh", "-c", script}, Stdout: os.Stdout, Stderr: os.Stderr})
	if err != nil {
		return err
	}
	status, err := p.Wait()
	if err != nil {
		return err
	}
	log.Printf("%s", status)
	return nil
}
