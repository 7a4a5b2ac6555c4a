package gateway

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/mdlayher/netlink"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/selfstead/selfstead/nat/nattest"
)

// manySources is a Config with n sources.
func manySources(n int) Config {
	cfg := Config{Gateways: []string{"eth0"}}
	for i := range n {
		cfg.Sources = append(cfg.Sources, Source{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 9, byte(i >> 8), byte(i)}), 32), "eth0"})
	}
	return cfg
}

// BenchmarkApply measures an Apply of 500 sources to a host without any, the
// same again, and one more.
func BenchmarkApply(b *testing.B) {
	nattest.Require(b, "ip")
	s := nattest.NewLab(b).Space("host")
	s.IP("link add eth0 type bridge\nlink set eth0 up\naddr add 192.0.2.2/24 dev eth0\nroute add default via 192.0.2.1")
	c := controllerIn(b, s)
	apply := func(b *testing.B, cfg Config) {
		if err := c.Apply(b.Context(), cfg); err != nil {
			b.Fatal(err)
		}
	}
	for _, n := range []int{1, 500} {
		cfg, more := manySources(n), manySources(n+1)
		b.Run(fmt.Sprintf("new/%d", n), func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				require.NoError(b, c.CleanUp(b.Context()))
				b.StartTimer()
				apply(b, cfg)
			}
		})
		b.Run(fmt.Sprintf("same/%d", n), func(b *testing.B) {
			for b.Loop() {
				apply(b, cfg)
			}
		})
		b.Run(fmt.Sprintf("one more/%d", n), func(b *testing.B) {
			for b.Loop() {
				apply(b, more)
				b.StopTimer()
				apply(b, cfg)
				b.StartTimer()
			}
		})
	}
}

// BenchmarkLookup measures a route lookup by the kernel without a policy, and
// with 500 sources that do not match.
func BenchmarkLookup(b *testing.B) {
	nattest.Require(b, "ip")
	s := nattest.NewLab(b).Space("host")
	s.IP("link add eth0 type bridge\nlink set eth0 up\naddr add 192.0.2.2/24 dev eth0\nroute add default via 192.0.2.1")
	c := controllerIn(b, s)
	for _, n := range []int{0, 1, 500} {
		cfg := Config{}
		if n > 0 {
			cfg = manySources(n)
		}
		require.NoError(b, c.Apply(b.Context(), cfg))
		b.Run(fmt.Sprintf("sources=%d", n), func(b *testing.B) {
			var k *kernel
			s.Do(func() (err error) {
				k, err = dial(nil)
				return err
			})
			defer k.close()
			// RTM_GETROUTE for 203.0.113.1.
			req := make([]byte, unix.SizeofRtMsg)
			req[0], req[1] = unix.AF_INET, 32
			e := netlink.NewAttributeEncoder()
			e.Bytes(unix.RTA_DST, []byte{203, 0, 113, 1})
			attrs, err := e.Encode()
			require.NoError(b, err)
			msg := netlink.Message{Header: netlink.Header{Type: unix.RTM_GETROUTE, Flags: netlink.Request}, Data: append(req, attrs...)}
			for b.Loop() {
				if _, err := k.c.Execute(msg); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
