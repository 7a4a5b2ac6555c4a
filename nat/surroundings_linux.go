package nat

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// What the rules need outside our table: hairpin mode on a target's bridge
// port where bridge netfilter is on, and route_localnet on the link to the
// target of a loopback forward. Each change is noted in a set of our table
// before it is made and struck out after it is undone, so that CleanUp finds
// it after a crash; the note holds the link's name, since numbers are reused.

// loadRecords loads the notes of this or an earlier process.
func (c *Controller) loadRecords() error {
	if c.records != nil {
		return nil
	}
	records := map[string]map[uint32]string{setPorts: {}, setLocalnet: {}}
	d := &dumper{s: c.nft, table: c.table, loose: true}
	for name := range records {
		d.elements(name, func(e rawElement) { records[name][binary.NativeEndian.Uint32(e.key)] = string(e.note) })
		if errors.Is(d.err, unix.ENOENT) {
			d.err = nil
		}
	}
	if d.err == nil {
		c.records = records
	}
	return d.err
}

// beforeSwitch makes what new forwards need.
func (c *Controller) beforeSwitch() error {
	if err := c.loadRecords(); err != nil {
		return err
	}
	ports, err := c.wantedPorts()
	if err != nil {
		return err
	}
	c.wanted = map[string]map[uint32]bool{setPorts: ports, setLocalnet: c.plan.wantedLocalnet()}
	for index := range c.wanted[setLocalnet] {
		name := c.plan.env.Links[int(index)].Name
		on, err := c.localnet(name)
		if gone(err) {
			continue // since the links were read
		}
		if err != nil {
			return err
		}
		if on {
			continue // ours already, or an administrator's
		}
		if err := c.note(setLocalnet, index, name); err != nil {
			return err
		}
		if err := c.setLocalnet(name, true); err != nil && !gone(err) {
			return err
		}
	}
	for index := range ports {
		link := c.plan.env.Links[int(index)]
		if link.Hairpin {
			continue
		}
		if err := c.note(setPorts, index, link.Name); err != nil {
			return err
		}
		if err := c.setHairpin(index, link.Name, true); gone(err) {
			continue
		} else if err != nil {
			return err
		}
		link.Hairpin = true
		c.plan.env.Links[int(index)] = link
	}
	return nil
}

// afterSwitch undoes what is needed no more.
func (c *Controller) afterSwitch() error {
	for set, notes := range c.records {
		for index, note := range notes {
			if c.wanted[set][index] && c.named(index, note) {
				continue
			}
			if err := c.undo(set, index, note); err != nil {
				return err
			}
			if err := c.strike(set, index); err != nil {
				return err
			}
		}
	}
	return nil
}

// undoRecords undoes everything that the notes say; the notes go with the table.
func (c *Controller) undoRecords() error {
	env, err := readEnvironment(c.route)
	if err != nil {
		return err
	}
	c.plan = &plan{env: env}
	defer func() { c.plan = nil }()
	for set, notes := range c.records {
		for index, note := range notes {
			if err := c.undo(set, index, note); err != nil {
				return err
			}
		}
	}
	c.records = nil
	return nil
}

// named reports whether the link of that number is still the one of the note.
func (c *Controller) named(index uint32, note string) bool {
	name, _, _ := readNote(note)
	link, ok := c.plan.env.Links[int(index)]
	return ok && link.Name == name
}

func (c *Controller) undo(set string, index uint32, note string) error {
	if !c.named(index, note) {
		return nil // the link is gone, and its settings with it
	}
	name, _, _ := readNote(note)
	err := error(nil)
	if set == setPorts {
		if link := c.plan.env.Links[int(index)]; link.Hairpin && link.Master != 0 {
			err = c.setHairpin(index, name, false)
		}
	} else {
		err = c.setLocalnet(name, false)
	}
	if gone(err) {
		return nil
	}
	return err
}

// gone reports whether a setting failed because its link is there no more: links
// come and go whenever they like.
func gone(err error) bool { return errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENOENT) }

// note writes an element to a record set, making table and set where needed.
func (c *Controller) note(set string, index uint32, name string) error {
	unguarded := set == setLocalnet && c.gen == 0 // whether the guard is there is not known
	if _, ok := c.records[set][index]; ok && !unguarded {
		return nil
	}
	b := newBatch(c.table, 0)
	b.addTable()
	for _, shape := range recordShapes {
		if shape.name == set {
			b.addSet(shape)
		}
	}
	k := keyed{string(nativeUint32(index)), value{note: note(name, "")}}
	b.elements(unix.NFT_MSG_NEWSETELEM, set, 0, []keyed{k})
	if unguarded { // the sysctl must not be without it
		if err := c.addGuard(b); err != nil {
			return err
		}
	}
	if err := c.commitRecord(b); err != nil {
		return err
	}
	c.records[set][index] = k.note
	return nil
}

// addGuard writes the guard chain anew, whatever was in it.
func (c *Controller) addGuard(b *batch) error {
	for _, guard := range layout(c.bit, func(setID) []uint8 { return nil }, false) {
		if guard.name != chainGuard {
			continue
		}
		b.addChain(&guard)
		b.flushChain(guard.name)
		for j := range guard.rules {
			if err := b.addRule(guard.name, &guard.rules[j]); err != nil {
				return err
			}
		}
	}
	return nil
}

// strike removes an element from a record set.
func (c *Controller) strike(set string, index uint32) error {
	b := newBatch(c.table, 0)
	b.elements(unix.NFT_MSG_DELSETELEM, set, 0, []keyed{{key: string(nativeUint32(index))}})
	if err := c.commitRecord(b); err != nil && !errors.Is(err, unix.ENOENT) {
		return err
	}
	delete(c.records[set], index)
	return nil
}

// commitRecord keeps the known generation up to date.
func (c *Controller) commitRecord(b *batch) error {
	gen, err := c.nft.commit(b)
	if err != nil || c.gen == 0 || gen != nextGen(c.gen) {
		gen = 0
	}
	c.gen = gen
	return err
}

// wantedLocalnet lists the links that lead to targets of loopback forwards.
func (p *plan) wantedLocalnet() map[uint32]bool {
	out := map[uint32]bool{}
	for name := range p.loopback {
		if r, ok := p.env.route(p.byName[name].Target.Addr); ok {
			out[uint32(r.Link)] = true
		}
	}
	return out
}

func localnetPath(link string) string {
	return filepath.Join("/proc/sys/net/ipv4/conf", link, "route_localnet")
}

// localnet reports whether loopback addresses may be routed over a link.
func (c *Controller) localnet(link string) (on bool, err error) {
	err = c.ns.do(func() error {
		for _, name := range []string{"all", link} {
			b, err := os.ReadFile(localnetPath(name))
			if err != nil {
				return &KernelError{Op: "read route_localnet of", Object: name, Err: err}
			}
			on = on || strings.TrimSpace(string(b)) != "0"
		}
		return nil
	})
	return on, err
}

func (c *Controller) setLocalnet(link string, on bool) error {
	v := "0"
	if on {
		v = "1"
	}
	return c.ns.do(func() error {
		if err := os.WriteFile(localnetPath(link), []byte(v), 0); err != nil {
			return &KernelError{Op: "set route_localnet of", Object: link, Err: err}
		}
		return nil
	})
}

// bridgeRules reports for which families frames visit the IP rules on every bridge.
func (c *Controller) bridgeRules() (call [2]bool) {
	_ = c.ns.do(func() error {
		for i, name := range []string{"bridge-nf-call-iptables", "bridge-nf-call-ip6tables"} {
			b, err := os.ReadFile("/proc/sys/net/bridge/" + name)
			call[i] = err == nil && strings.TrimSpace(string(b)) != "0"
		}
		return nil
	})
	return call
}

// nextHops lists, by bridge, the neighbours that targets are reached by, where
// frames on that bridge visit the rules of their family.
func (c *Controller) nextHops(p *plan) map[int][]netip.Addr {
	bridged := false
	for _, l := range p.env.Links {
		bridged = bridged || l.Kind == "bridge"
	}
	if !bridged {
		return nil
	}
	call := c.bridgeRules()
	out := map[int][]netip.Addr{}
	for addr := range p.targets {
		r, ok := p.env.route(addr)
		if !ok {
			continue
		}
		fam, link := 0, p.env.Links[r.Link]
		if addr.Is6() {
			fam = 1
		}
		if link.Kind != "bridge" || !call[fam] && !link.CallRules[fam] {
			continue
		}
		if r.Via.IsValid() {
			addr = r.Via
		}
		out[r.Link] = append(out[r.Link], addr)
	}
	return out
}
