package nat_test

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/ipc"
	"golang.zx2c4.com/wireguard/tun"
	"golang.zx2c4.com/wireguard/wgctrl"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/selfstead/selfstead/nat/nattest"
)

// tunnel starts a userspace WireGuard device inside a namespace and configures
// it through wgctrl. Device names are unique on the machine: control sockets
// are files.
func tunnel(t *testing.T, s *nattest.Space, name string, cfg wgtypes.Config) {
	t.Helper()
	var dev *device.Device
	s.Do(func() error {
		tdev, err := tun.CreateTUN(name, 1420)
		if err != nil {
			return err
		}
		dev = device.NewDevice(tdev, conn.NewDefaultBind(), &device.Logger{Verbosef: device.DiscardLogf, Errorf: device.DiscardLogf})
		return nil
	})
	t.Cleanup(dev.Close)
	// Sockets are made by the calling thread, so the port is set here and the
	// rest through the control socket.
	s.Do(func() error {
		if err := dev.Up(); err != nil {
			return err
		}
		return dev.IpcSet(fmt.Sprintf("listen_port=%d\n", wireGuardPort))
	})
	file, err := ipc.UAPIOpen(name)
	require.NoError(t, err)
	control, err := ipc.UAPIListen(name, file)
	require.NoError(t, err)
	t.Cleanup(func() { control.Close() })
	go func() {
		for {
			c, err := control.Accept()
			if err != nil {
				return
			}
			go dev.IpcHandle(c)
		}
	}()
	client, err := wgctrl.New()
	require.NoError(t, err)
	defer client.Close()
	require.NoError(t, client.ConfigureDevice(name, cfg))
	s.IP("link set " + name + " up")
}

const wireGuardPort = 51820

func prefixes(list ...string) (out []net.IPNet) {
	for _, s := range list {
		_, p, err := net.ParseCIDR(s)
		if err != nil {
			panic(err)
		}
		out = append(out, *p)
	}
	return out
}

// TestHairpinWireGuard has a hub T publish a port of its peer P: P reaches
// itself, the other peer Q and the hub itself reach P, and an outside client
// does, over real WireGuard.
func TestHairpinWireGuard(t *testing.T) {
	t.Parallel()
	nattest.Require(t, "ip")
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("this test needs /dev/net/tun")
		}
		t.Skip("this test needs /dev/net/tun")
	}
	hub, peerP, peerQ := pair("10.59.0.1", "fd59::1"), pair("10.59.0.2", "fd59::2"), pair("10.59.0.3", "fd59::3")
	lab := nattest.NewLab(t)
	ts, p, q, i := lab.Router("T"), lab.Space("P"), lab.Space("Q"), lab.Space("I")
	lab.Join(ts, "wan0", i, "eth0")
	ts.IP("addr add 203.0.113.7/24 dev wan0\naddr add 2001:db8:2::7/64 dev wan0\nroute add default via 203.0.113.50\nroute add default via 2001:db8:2::50")
	i.IP("addr add 203.0.113.50/24 dev eth0\naddr add 2001:db8:2::50/64 dev eth0")
	id := os.Getpid() % 100000
	names := map[*nattest.Space]string{ts: fmt.Sprintf("wgt%d", id), p: fmt.Sprintf("wgp%d", id), q: fmt.Sprintf("wgq%d", id)}
	keys := map[*nattest.Space]wgtypes.Key{}
	for s := range names {
		k, err := wgtypes.GeneratePrivateKey()
		require.NoError(t, err)
		keys[s] = k
	}
	hubKey := keys[ts]
	hubCfg := wgtypes.Config{PrivateKey: &hubKey}
	for n, peer := range []*nattest.Space{p, q} {
		own := []map[string]netip.Addr{peerP, peerQ}[n]
		lab.Join(ts, "u"+peer.Name, peer, "eth0")
		ts.IP(fmt.Sprintf("addr add 192.0.2.%d/30 dev u%s", 4*n+1, peer.Name))
		peer.IP(fmt.Sprintf("addr add 192.0.2.%d/30 dev eth0", 4*n+2))
		hubCfg.Peers = append(hubCfg.Peers, wgtypes.PeerConfig{
			PublicKey: keys[peer].PublicKey(), AllowedIPs: prefixes(own["4"].String()+"/32", own["6"].String()+"/128"),
			Endpoint: &net.UDPAddr{IP: net.IPv4(192, 0, 2, byte(4*n+2)), Port: wireGuardPort},
		})
	}
	tunnel(t, ts, names[ts], hubCfg)
	ts.IP(fmt.Sprintf("addr add 10.59.0.1/24 dev %[1]s\naddr add fd59::1/64 dev %[1]s", names[ts]))
	for n, peer := range []*nattest.Space{p, q} {
		own := []map[string]netip.Addr{peerP, peerQ}[n]
		key := keys[peer]
		tunnel(t, peer, names[peer], wgtypes.Config{PrivateKey: &key, Peers: []wgtypes.PeerConfig{{
			PublicKey: hubKey.PublicKey(), AllowedIPs: prefixes("0.0.0.0/0", "::/0"),
			Endpoint: &net.UDPAddr{IP: net.IPv4(192, 0, 2, byte(4*n+1)), Port: wireGuardPort},
		}}})
		peer.IP(fmt.Sprintf(`addr add %[2]s/24 dev %[1]s
addr add %[3]s/64 dev %[1]s
route add 0.0.0.0/0 dev %[1]s
route add ::/0 dev %[1]s`, names[peer], own["4"], own["6"]))
	}
	for _, fam := range families {
		p.Serve(at(peerP[fam], 8080))
	}
	for _, prefix := range []map[string]int{subnets, {"4": 32, "6": 128}} {
		cfg := publish(prefix)
		for n := range cfg.Forwards {
			f := &cfg.Forwards[n]
			f.Target.Addr = peerP["4"]
			if f.Source.Addr().Is6() {
				f.Target.Addr = peerP["6"]
			}
		}
		c := controller(t, ts)
		apply(t, c, cfg)
		for _, fam := range families {
			for _, network := range networks {
				for _, outside := range []map[string]netip.Addr{wanAddr, farAddr} {
					sees(t, p, network, at(outside[fam], 5000), hub[fam])   // the peer itself
					sees(t, q, network, at(outside[fam], 5000), peerQ[fam]) // another peer keeps its address
					sees(t, ts, network, at(outside[fam], 5000), hub[fam])  // the hub itself
				}
				sees(t, i, network, at(wanAddr[fam], 5000), wanHost[fam]) // from outside
			}
		}
		// That is what the masquerade is for:
		require.NoError(t, c.Close()) // or it would put the element back
		ts.Run("nft", "flush set inet selfstead self4")
		fails(t, p, "tcp", at(wanAddr["4"], 5000))
	}
}
