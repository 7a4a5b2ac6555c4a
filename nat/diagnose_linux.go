package nat

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

var hookNames = map[uint32]string{hookPrerouting: "prerouting", hookForward: "forward", hookOutput: "output", hookPostrouting: "postrouting"}

var familyNames = map[byte]string{nfprotoInet: "inet", nfprotoIPv4: "ip", nfprotoIPv6: "ip6"}

// Diagnose looks for what keeps forwards from working although our table is as
// it should be: chains of other programs that drop what was translated (a drop
// in any table is final), forwarding switched off, targets without a route, and
// a hairpin mode or route_localnet that is missing, because another program
// switched it off or the target came after the process that applied had ended.
// It changes nothing. An empty list means that nothing was found.
func (c *Controller) Diagnose(ctx context.Context) ([]Finding, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, ErrClosed
	}
	var out []Finding
	for try := range maxTries {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		found, err := c.foreignDrops()
		if errors.Is(err, errMoved) {
			if try == maxTries-1 {
				return nil, fmt.Errorf("%w: gave up reading after %d tries", ErrConflict, maxTries)
			}
			continue
		}
		if err != nil {
			return nil, err
		}
		out = found
		break
	}
	_, elements, err := readAll(c.nft, c.table)
	if err != nil && !errors.Is(err, errMoved) {
		return nil, err
	}
	env, err := readEnvironment(c.route)
	if err != nil {
		return nil, err
	}
	forwards := forwardsOf(elements)
	out = append(out, c.forwardingOff(forwards)...)
	out = append(out, unroutable(forwards, &env)...)
	missing, err := c.missingSettings(forwards, env)
	return append(out, missing...), err
}

// missingSettings reports what forwards need outside our table and do not have.
func (c *Controller) missingSettings(forwards []Forward, env Environment) (out []Finding, err error) {
	p, err := newPlan(Config{Forwards: forwards}, env)
	if err != nil {
		return nil, nil // someone edited our table; the next Apply mends it
	}
	ports, err := c.portsOf(env.Links)
	if err != nil {
		return nil, err
	}
	for bridge, addrs := range c.nextHops(p) {
		for _, addr := range addrs {
			if link, ok := env.Links[ports(bridge, addr)]; ok && !link.Hairpin {
				out = append(out, Finding{true, "bridge port " + link.Name, fmt.Sprintf("has no hairpin mode although bridge netfilter is on, so %s does not reach itself by an outside address; applying the forwards again sets it", addr)})
			}
		}
	}
	for index := range p.wantedLocalnet() {
		name := env.Links[int(index)].Name
		if on, err := c.localnet(name); err == nil && !on {
			out = append(out, Finding{true, "link " + name, "has no route_localnet, so forwards of a loopback address do not work; applying the forwards again sets it"})
		}
	}
	slices.SortFunc(out, func(a, b Finding) int {
		return cmp.Or(strings.Compare(a.Subject, b.Subject), strings.Compare(a.Problem, b.Problem))
	})
	return out, nil
}

// foreignDrops judges every base chain that is not ours.
func (c *Controller) foreignDrops() ([]Finding, error) {
	gen, err := c.nft.generation(nil, nil)
	if err != nil {
		return nil, err
	}
	type tableKey struct {
		family byte
		table  string
	}
	var bases []foreignChain
	rules := map[tableKey]map[string][]ruleView{}
	var moved bool
	fresh := func(m message) bool {
		moved = moved || len(m.body) < 4 || binary.BigEndian.Uint16(m.body[2:]) != uint16(gen)
		return !moved
	}
	if err := c.nft.request("dump chains", "", nft(unix.NFT_MSG_GETCHAIN), unix.NLM_F_DUMP, make([]byte, 4), func(m message) {
		if !fresh(m) {
			return
		}
		chain := readChain(m.body[4:])
		chain.family = m.body[0]
		if familyNames[chain.family] != "" && chain.base && !chain.nat && hookNames[chain.hook] != "" && !(chain.family == nfprotoInet && chain.table == c.table) {
			bases = append(bases, chain)
		}
	}); err != nil {
		return nil, err
	}
	if err := c.nft.request("dump rules", "", nft(unix.NFT_MSG_GETRULE), unix.NLM_F_DUMP, make([]byte, 4), func(m message) {
		if !fresh(m) {
			return
		}
		table, chain, view := viewRule(m.body[4:])
		key := tableKey{m.body[0], table}
		if rules[key] == nil {
			rules[key] = map[string][]ruleView{}
		}
		rules[key][chain] = append(rules[key][chain], view)
	}); err != nil {
		return nil, err
	}
	if moved {
		return nil, errMoved
	}
	slices.SortFunc(bases, func(a, b foreignChain) int {
		return cmp.Or(cmp.Compare(a.family, b.family), strings.Compare(a.table, b.table), strings.Compare(a.name, b.name))
	})
	var out []Finding
	for _, b := range bases {
		subject := fmt.Sprintf("table %s %s, chain %s", familyNames[b.family], b.table, b.name)
		if f, bad := verdictOf(subject, hookNames[b.hook], b.policy == 0, judge(rules[tableKey{b.family, b.table}], b.name, 0)); bad {
			out = append(out, f)
		}
	}
	return out, nil
}

// viewRule reduces a rule to what judge needs.
func viewRule(b []byte) (table, chain string, view ruleView) {
	for typ, v := range each(b) {
		switch typ {
		case unix.NFTA_RULE_TABLE:
			table = attrString(v)
		case unix.NFTA_RULE_CHAIN:
			chain = attrString(v)
		case unix.NFTA_RULE_EXPRESSIONS:
			view = viewExprs(v)
		}
	}
	return table, chain, view
}

func viewExprs(list []byte) (view ruleView) {
	key, mask := uint32(0), uint32(0) // of a conntrack value under test
	for _, e := range each(list) {
		var name string
		vals := map[uint16][]byte{}
		for typ, v := range each(e) {
			if typ == unix.NFTA_EXPR_NAME {
				name = attrString(v)
			} else {
				for typ, v := range each(v) {
					vals[typ] = v
				}
			}
		}
		switch name {
		case "counter", "log", "objref":
		case "immediate":
			if attrUint32(vals[unix.NFTA_IMMEDIATE_DREG]) == 0 {
				view.verdict, view.to = readVerdict(vals[unix.NFTA_IMMEDIATE_DATA])
			}
		case "reject":
			view.verdict = "drop"
		case "ct":
			key = attrUint32(vals[unix.NFTA_CT_KEY]) + 1
		case "bitwise":
			if v := dataValue(vals[unix.NFTA_BITWISE_MASK]); len(v) == 4 {
				mask = binary.NativeEndian.Uint32(v)
			}
		case "cmp":
			view.when = max(view.when, testsNew(key, mask, attrUint32(vals[unix.NFTA_CMP_OP]), dataValue(vals[unix.NFTA_CMP_DATA])))
			key, mask = 0, 0
		default:
			view.when = unknown
		}
	}
	return view
}

// testsNew judges a comparison of a conntrack state or status mask.
func testsNew(key, mask, op uint32, data []byte) condition {
	if op != unix.NFT_CMP_NEQ || len(data) != 4 || binary.NativeEndian.Uint32(data) != 0 || mask == 0 {
		return unknown
	}
	switch key {
	case unix.NFT_CT_STATUS + 1:
		if mask&statusDstNAT != 0 {
			return always
		}
	case unix.NFT_CT_STATE + 1:
		if mask&8 != 0 { // new
			return always
		}
		return never
	}
	return unknown
}

func readVerdict(b []byte) (verdict, to string) {
	for typ, v := range each(b) {
		if typ != unix.NFTA_DATA_VERDICT {
			continue
		}
		for typ, v := range each(v) {
			switch typ {
			case unix.NFTA_VERDICT_CODE:
				verdict = map[int32]string{0: "drop", 1: "accept", unix.NFT_JUMP: "jump", unix.NFT_GOTO: "goto", unix.NFT_RETURN: "return"}[int32(attrUint32(v))]
			case unix.NFTA_VERDICT_CHAIN:
				to = attrString(v)
			}
		}
	}
	return verdict, to
}

// forwardingOff reports a switched-off forwarding sysctl of a family in use,
// and rules of the older iptables that cannot be seen here.
func (c *Controller) forwardingOff(forwards []Forward) (out []Finding) {
	uses := func(six bool) bool {
		return len(forwards) == 0 || slices.ContainsFunc(forwards, func(f Forward) bool { return f.Target.Addr.Is6() == six })
	}
	_ = c.ns.do(func() error {
		for _, s := range []struct {
			six       bool
			key, path string
		}{
			{false, "net.ipv4.ip_forward", "/proc/sys/net/ipv4/ip_forward"},
			{true, "net.ipv6.conf.all.forwarding", "/proc/sys/net/ipv6/conf/all/forwarding"},
		} {
			if b, err := os.ReadFile(s.path); err == nil && strings.TrimSpace(string(b)) == "0" && uses(s.six) {
				out = append(out, Finding{true, "sysctl " + s.key, "is 0, so the host passes nothing on to targets; set it to 1"})
			}
		}
		for _, p := range []string{"/proc/net/ip_tables_names", "/proc/net/ip6_tables_names"} {
			if b, err := os.ReadFile(p); err == nil && strings.Contains(string(b), "filter") {
				out = append(out, Finding{false, p, "the older iptables has a filter table, whose rules are not visible here and may drop forwarded connections"})
			}
		}
		return nil
	})
	return out
}

// unroutable reports targets that no route leads to.
func unroutable(forwards []Forward, env *Environment) (out []Finding) {
	seen := map[netip.Addr]bool{}
	for _, f := range forwards {
		a := f.Target.Addr
		if _, ok := env.route(a); ok || seen[a] || env.Addrs[a] != 0 {
			continue
		}
		seen[a] = true
		out = append(out, Finding{true, "target " + a.String(), fmt.Sprintf("has no route, so forward %q leads nowhere", f.Name)})
	}
	return out
}
