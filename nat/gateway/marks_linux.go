package gateway

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"
)

// priorityMangle is where marks are set (NF_IP_PRI_MANGLE): after conntrack,
// before destination NAT and routing. priorityLast is after all filters, right
// before a packet meets its socket.
const (
	priorityMangle = -150
	priorityLast   = 1000
)

// markRule is one rule of our nftables table. Its comment says all that it
// depends on, and is what tables are compared by.
type markRule struct {
	chain, comment string
	exprs          []expr.Any
}

// markChains are the chains of our table.
var markChains = []string{"prerouting", "output", "input", "remember", "restore"}

// makeMarks are the rules for these slots. was holds the settings that are to be
// put back one day.
func makeMarks(mask uint32, bySlot map[string]uint32, was map[string]string) []markRule {
	if len(bySlot) == 0 && len(was) == 0 {
		return nil
	}
	shift := trailingZeros(mask)
	rules := []markRule{
		{"prerouting", fmt.Sprintf("replies, mask %#x", mask), marked(1, mask)},
		{"prerouting", fmt.Sprintf("new connections, mask %#x", mask), fresh(mask)},
		{"output", fmt.Sprintf("replies, mask %#x", mask), marked(1, mask)},
		{"input", fmt.Sprintf("questions, mask %#x", mask), marked(0, mask)},
	}
	for _, name := range slices.Sorted(maps.Keys(bySlot)) {
		mark := bySlot[name] << shift
		rules = append(rules,
			markRule{"remember", fmt.Sprintf("%s is %#x", name, mark), remember(name, mark, mask)},
			markRule{"restore", fmt.Sprintf("%#x", mark), restore(mark, mask)})
	}
	for _, setting := range slices.Sorted(maps.Keys(was)) {
		// A rule that does nothing but carry the comment.
		rules = append(rules, markRule{"remember", setting + wasComment + was[setting], []expr.Any{&expr.Verdict{Kind: expr.VerdictContinue}}})
	}
	slices.SortStableFunc(rules, func(a, b markRule) int {
		return slices.Index(markChains, a.chain) - slices.Index(markChains, b.chain)
	})
	return rules
}

const wasComment = " was "

// marks is our nftables table in one namespace.
type marks struct {
	ns    *os.File
	table string
}

func (m marks) open() (*nftables.Conn, *nftables.Table, error) {
	c, err := nftables.New(nftables.WithNetNSFd(int(m.ns.Fd())))
	if err != nil {
		return nil, nil, fmt.Errorf("gateway: nftables: %w", err)
	}
	return c, &nftables.Table{Name: m.table, Family: nftables.TableFamilyINet}, nil
}

// have lists the rules there are, without expressions; ok is false when there is
// no table.
func (m marks) have() (rules []markRule, ok bool, err error) {
	c, t, err := m.open()
	if err != nil {
		return nil, false, err
	}
	tables, err := c.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		return nil, false, fmt.Errorf("gateway: nftables: %w", err)
	}
	if !slices.ContainsFunc(tables, func(t *nftables.Table) bool { return t.Name == m.table }) {
		return nil, false, nil
	}
	for _, name := range markChains {
		list, err := c.GetRules(t, &nftables.Chain{Name: name, Table: t})
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return nil, false, fmt.Errorf("gateway: nftables: %w", err)
		}
		for _, r := range list {
			comment, _ := userdata.GetString(r.UserData, userdata.TypeComment)
			rules = append(rules, markRule{chain: name, comment: comment})
		}
	}
	return rules, true, nil
}

// settingsOf are the settings to put back that rules tell of.
func settingsOf(rules []markRule) map[string]string {
	out := map[string]string{}
	for _, r := range rules {
		if setting, value, ok := strings.Cut(r.comment, wasComment); ok && ourSetting(setting) && (value == "0" || value == "1" || value == "2") {
			out[setting] = value
		}
	}
	return out
}

// apply makes our table hold wanted, in one transaction; without rules it goes.
// Nothing is written when it holds them.
func (m marks) apply(wanted []markRule) error {
	have, there, err := m.have()
	if err != nil {
		return err
	}
	same := slices.EqualFunc(have, wanted, func(a, b markRule) bool { return a.chain == b.chain && a.comment == b.comment })
	if same && there == (len(wanted) > 0) {
		return nil
	}
	c, t, err := m.open()
	if err != nil {
		return err
	}
	c.AddTable(t) // so that deleting it cannot fail
	c.DelTable(t)
	if len(wanted) > 0 {
		c.AddTable(t)
		prio := nftables.ChainPriorityRef(priorityMangle)
		chains := map[string]*nftables.Chain{
			"remember":   {Name: "remember", Table: t},
			"restore":    {Name: "restore", Table: t},
			"prerouting": {Name: "prerouting", Table: t, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookPrerouting, Priority: prio},
			"input":      {Name: "input", Table: t, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookInput, Priority: nftables.ChainPriorityRef(priorityLast)},
			"output":     {Name: "output", Table: t, Type: nftables.ChainTypeRoute, Hooknum: nftables.ChainHookOutput, Priority: prio},
		}
		for _, name := range []string{"remember", "restore", "prerouting", "output", "input"} {
			c.AddChain(chains[name])
		}
		for _, r := range wanted {
			c.AddRule(&nftables.Rule{Table: t, Chain: chains[r.chain], Exprs: r.exprs, UserData: userdata.AppendString(nil, userdata.TypeComment, r.comment)})
		}
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("gateway: marks: %w", err)
	}
	return nil
}

func native(v uint32) []byte { return binaryutil.NativeEndian.PutUint32(v) }

// masked: ct mark & MASK OP VALUE
func masked(mask uint32, op expr.CmpOp, value uint32) []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeyMARK, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: native(mask), Xor: native(0)},
		&expr.Cmp{Op: op, Register: 1, Data: native(value)},
	}
}

func jump(chain string) expr.Any { return &expr.Verdict{Kind: expr.VerdictJump, Chain: chain} }

// marked: ct direction DIRECTION ct mark & MASK != 0 meta mark & MASK == 0 jump restore
func marked(direction byte, mask uint32) []expr.Any {
	out := []expr.Any{
		&expr.Ct{Key: expr.CtKeyDIRECTION, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{direction}},
	}
	out = append(out, masked(mask, expr.CmpOpNeq, 0)...)
	return append(out,
		&expr.Meta{Key: expr.MetaKeyMARK, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: native(mask), Xor: native(0)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: native(0)},
		jump("restore"))
}

// fresh: ct state new ct mark & MASK == 0 jump remember
func fresh(mask uint32) []expr.Any {
	state := make([]byte, 4)
	binary.NativeEndian.PutUint32(state, expr.CtStateBitNEW)
	out := []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATE, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: state, Xor: native(0)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: native(0)},
	}
	return append(append(out, masked(mask, expr.CmpOpEq, 0)...), jump("remember"))
}

// remember: iifname NAME ct mark set ct mark & ~MASK | MARK
func remember(name string, mark, mask uint32) []expr.Any {
	iface := make([]byte, unix.IFNAMSIZ)
	copy(iface, name)
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: iface},
		&expr.Ct{Key: expr.CtKeyMARK, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: native(^mask), Xor: native(mark)},
		&expr.Ct{Key: expr.CtKeyMARK, SourceRegister: true, Register: 1},
	}
}

// restore: ct mark & MASK == MARK meta mark set meta mark & ~MASK | MARK.
// A rule for each slot, because a mark's bits cannot be joined with another
// mark's before Linux 6.13, and other bits of a packet's mark are others'.
func restore(mark, mask uint32) []expr.Any {
	return append(masked(mask, expr.CmpOpEq, mark),
		&expr.Meta{Key: expr.MetaKeyMARK, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: native(^mask), Xor: native(mark)},
		&expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: 1})
}
