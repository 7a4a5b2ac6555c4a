package nat_test

import (
	"context"
	"fmt"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/selfstead/selfstead/nat"
	"github.com/selfstead/selfstead/nat/nattest"
)

// Links that lead to targets of loopback forwards may go at any moment, between
// two steps of an Apply too; that is no error.
func TestLinksThatVanish(t *testing.T) {
	t.Parallel()
	lab := nattest.NewLab(t)
	s := lab.Router("S")
	c := controller(t, s)
	const links = 8
	var some, all nat.Config
	add, del := "", ""
	for i := range links {
		target := fmt.Sprintf("10.0.9.%d", i+2)
		add += fmt.Sprintf("link add v%d type veth peer name w%[1]d\nlink set w%[1]d up\nlink set v%[1]d up\nroute add %s dev v%[1]d\n", i, target)
		del += fmt.Sprintf("link del v%d\n", i)
		f := nat.Forward{Name: target, Source: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(5000+i)),
			Target: nat.Target{Addr: netip.MustParseAddr(target), Prefix: 32, Port: 80}}
		all.Forwards = append(all.Forwards, f)
		if i%2 == 0 {
			some.Forwards = append(some.Forwards, f)
		}
	}
	done := make(chan struct{})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-done:
				return
			default:
				s.IP(add)
				s.IP(del)
			}
		}
	}()
	for i := range 1500 {
		cfg := all
		if i%2 == 0 {
			cfg = some
		}
		if !assertNoError(t, c.Apply(context.Background(), cfg)) {
			break
		}
	}
	close(done)
	<-ended
	s.IP(add)
	apply(t, c, all)
	for i := range links {
		require.Equal(t, "1", s.ReadSysctl(fmt.Sprintf("net.ipv4.conf.v%d.route_localnet", i)))
	}
}

// assertNoError lets the rest of a test clean up.
func assertNoError(t *testing.T, err error) bool {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
	return err == nil
}
