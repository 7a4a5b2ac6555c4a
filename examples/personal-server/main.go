// Command personal-server is the whole server in one program of your own: the
// API, accounts, containers and forwards of one state folder, until interrupted.
//
//	personal-server /var/lib/my-server 127.0.0.1:8080
package main

import (
	"context"
	"fmt"
	"log"
	"log/slog"
	"os"
	"os/signal"

	"github.com/selfstead/selfstead/server/daemon"
)

func main() {
	if len(os.Args) != 3 {
		log.Fatal("usage: personal-server DIR ADDRESS")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1], os.Args[2]); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, dir, listen string) error {
	d, err := daemon.Open(ctx, daemon.Options{Dir: dir, Listen: listen, Version: "example", Logger: slog.Default()})
	if err != nil {
		return err
	}
	defer d.Close(context.Background(), true) // services stop with it
	if err := d.Serve(ctx); err != nil {
		return err
	}
	fmt.Printf("%s/docs\nclaim code %s\n", d.URL(), d.ClaimCode())
	select {
	case <-ctx.Done():
	case <-d.Ended():
	}
	return nil
}
