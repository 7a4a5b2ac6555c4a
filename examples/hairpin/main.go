// Command hairpin publishes one port of an inside host until it is interrupted.
// The forward works from outside, from this host and from the target itself.
//
//	hairpin 203.0.113.7:443 10.59.0.2:8443 24
package main

import (
	"context"
	"fmt"
	"log"
	"net/netip"
	"os"
	"os/signal"
	"strconv"

	"github.com/selfstead/selfstead/nat"
)

func main() {
	if len(os.Args) != 4 {
		log.Fatal("usage: hairpin OUTSIDE:PORT TARGET:PORT PREFIX-LENGTH-OF-TARGET")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1], os.Args[2], os.Args[3]); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, outside, inside, prefix string) error {
	source, err := netip.ParseAddrPort(outside)
	if err != nil {
		return err
	}
	target, err := netip.ParseAddrPort(inside)
	if err != nil {
		return err
	}
	length, err := strconv.Atoi(prefix)
	if err != nil {
		return err
	}
	c, err := nat.New(nat.Options{Table: "hairpin_example"})
	if err != nil {
		return err
	}
	defer c.Close()
	err = c.Apply(ctx, nat.Config{Forwards: []nat.Forward{{
		Name:   "example",
		Source: source,
		Target: nat.Target{Addr: target.Addr(), Prefix: length, Port: target.Port()},
	}}})
	if err != nil {
		return err
	}
	fmt.Printf("%s leads to %s; interrupt to take it back\n", source, target)
	<-ctx.Done()
	return c.CleanUp(context.Background())
}
