package lxcrt

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestManyLinks: the table of a host with a thousand containers, some of them on
// a bridge, is put up in one transaction.
func TestManyLinks(t *testing.T) {
	if _, err := exec.LookPath("nft"); err != nil || os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("missing here, where nothing may be: nft, or root")
		}
		t.Skip("missing: nft, or root")
	}
	f := &firewall{name: fmt.Sprintf("lxcrt-many-%d", os.Getpid()), prefix: "m", links: map[string]linkPlan{}}
	f.sub4, f.gate4 = netip.MustParsePrefix("10.200.0.0/16"), netip.MustParseAddr("10.200.0.1")
	for i := range 1000 {
		p := linkPlan{name: fmt.Sprintf("m%08d", i), container: fmt.Sprintf("C%d", i),
			addr4: netip.AddrFrom4([4]byte{10, 200, byte(i>>8) + 1, byte(i)}),
			addr6: netip.AddrFrom16([16]byte{0xfd, 14: byte(i >> 8), 15: byte(i)})}
		if i%10 == 0 {
			p.bridge = "br0"
		}
		f.links[p.container] = p
		f.edges = append(f.edges, Edge{From: p.container, To: fmt.Sprintf("C%d", (i+10)%1000), Protocol: "tcp", Port: 80})
	}
	if err := f.install(); err != nil {
		t.Fatal(err)
	}
	count := func(family, set string) int {
		out, err := exec.Command("nft", "list", "set", family, f.name, set).Output()
		if err != nil {
			t.Error(err)
		}
		_, elements, _ := strings.Cut(string(out), "elements = {")
		if elements == "" {
			return 0
		}
		return strings.Count(elements, ",") + 1
	}
	for _, c := range []struct {
		family, set string
		want        int
	}{{"inet", "links4", 900}, {"inet", "links6", 900}, {"inet", "on4", 100}, {"inet", "edges4", 1000}, {"bridge", "addrs6", 100}, {"bridge", "pairs", 200}, {"bridge", "edges4", 100}} {
		if got := count(c.family, c.set); got != c.want {
			t.Errorf("%s %s: %d elements, want %d", c.family, c.set, got, c.want)
		}
	}
	if err := f.setEdges(nil); err != nil {
		t.Error(err)
	}
	if got := count("bridge", "pairs") + count("inet", "edges4"); got != 0 {
		t.Errorf("%d edges are left", got)
	}
	if err := f.only(func(name string) bool { return name != "C10" && name != "C11" }); err != nil {
		t.Error(err)
	}
	if got := count("bridge", "nd") + count("inet", "links6"); got != 198+899 {
		t.Errorf("%d elements are left", got)
	}
	if err := f.remove(); err != nil {
		t.Error(err)
	}
	if out, err := exec.Command("nft", "list", "tables").Output(); err != nil || strings.Contains(string(out), f.name) {
		t.Errorf("left: %s %v", out, err)
	}
}
