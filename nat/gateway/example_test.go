package gateway_test

import (
	"context"
	"fmt"
	"log"
	"net/netip"

	"github.com/selfstead/selfstead/nat/gateway"
)

// A host with an uplink, eth0, and a tunnel, wg0: all goes by the tunnel, but
// one service's traffic, and answers to what came in by the uplink.
func ExampleController_Apply() {
	c, err := gateway.New(gateway.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	err = c.Apply(context.Background(), gateway.Config{
		Gateways:    []string{"eth0"},
		Default:     "wg0",
		TunnelMarks: []uint32{0xca6c}, // FwMark of wg0
		Sources: []gateway.Source{
			{Prefix: netip.MustParsePrefix("10.0.3.5/32"), Gateway: "eth0"},
			{Prefix: netip.MustParsePrefix("fd00:3::5/128"), Gateway: "eth0"},
		},
	})
	if err != nil {
		log.Fatal(err)
	}
}

// Watch tells of interfaces, their addresses and next hops, as they come and go.
func ExampleWatch() {
	ctx := context.Background()
	err := gateway.Watch(ctx, func(list []gateway.Gateway) error {
		for _, g := range list {
			fmt.Println(g.Name, g.Up, g.Addresses, g.NextHop4, g.NextHop6)
		}
		return nil
	})
	log.Print(err)
}

func ExampleConfig_Validate() {
	c := gateway.Config{Default: "wg0", Sources: []gateway.Source{{Prefix: netip.MustParsePrefix("10.0.3.5/24"), Gateway: "eth0"}}}
	fmt.Println(c.Validate())
	// Output: gateway: invalid configuration: source 10.0.3.5/24 is not a network
}
