package guest

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"runtime/debug"
	"strings"
)

// gitInfoApplet prints the commit that this program was built from.
func gitInfoApplet(c *call, args []string) error {
	if _, err := operands(newOptions(), args, 0, 0); err != nil {
		return err
	}
	revision := "unknown"
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			switch {
			case s.Key == "vcs.revision":
				revision = s.Value
			case s.Key == "vcs.modified" && s.Value == "true":
				revision += "-modified"
			}
		}
	}
	_, err := fmt.Fprintln(c.stdout, revision)
	return err
}

// osIPApplet prints the address under which the container reaches the server:
// the host's own word for it, or else the default route's gateway.
func osIPApplet(c *call, args []string) error {
	if _, err := operands(newOptions(), args, 0, 0); err != nil {
		return err
	}
	cl := c.client()
	cl.patience = 0
	if result, err := cl.Call("get-os-ip", map[string]any{}); err == nil {
		var text string
		if json.Unmarshal(result, &text) == nil && text != "" {
			return printResult(c.stdout, result)
		}
	}
	table, err := os.ReadFile("/proc/net/route")
	if err != nil {
		return fmt.Errorf("guest: get-os-ip: %w", err)
	}
	gateway, ok := defaultGateway(string(table))
	if !ok {
		return fmt.Errorf("guest: get-os-ip: there is no default route")
	}
	_, err = fmt.Fprintln(c.stdout, gateway)
	return err
}

// defaultGateway reads the IPv4 default route's gateway from the kernel's
// table, where addresses are hexadecimal in host order (little-endian).
func defaultGateway(table string) (netip.Addr, bool) {
	for line := range strings.SplitSeq(table, "\n") {
		f := strings.Fields(line)
		if len(f) < 8 || f[1] != "00000000" || f[7] != "00000000" || f[2] == "00000000" {
			continue
		}
		b, err := hex.DecodeString(f[2])
		if err != nil || len(b) != 4 {
			continue
		}
		return netip.AddrFrom4([4]byte{b[3], b[2], b[1], b[0]}), true
	}
	return netip.Addr{}, false
}
