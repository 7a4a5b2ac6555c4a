package service

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/selfstead/selfstead/lxcrt"
	"github.com/selfstead/selfstead/patchdb"
	"github.com/selfstead/selfstead/server/state"
)

// peer is what decides who may reach a package's container directly.
type peer struct {
	container string
	needs     []string // packages it depends on
	ports     []uint16 // that it binds, ranges included
}

// edges lets each package open connections to the bound ports of the packages
// that it depends on, at the address of their container. Everything else
// between containers stays shut.
func edges(peers map[string]peer) []lxcrt.Edge {
	list := []lxcrt.Edge{}
	for id, p := range peers {
		for _, other := range p.needs {
			to, ok := peers[other]
			if !ok || other == id || p.container == "" || to.container == "" {
				continue
			}
			for _, port := range to.ports {
				for _, protocol := range []string{"tcp", "udp"} {
					list = append(list, lxcrt.Edge{From: p.container, To: to.container, Protocol: protocol, Port: port})
				}
			}
		}
	}
	slices.SortFunc(list, func(a, b lxcrt.Edge) int {
		return cmp.Or(cmp.Compare(a.From, b.From), cmp.Compare(a.To, b.To), cmp.Compare(a.Port, b.Port), cmp.Compare(a.Protocol, b.Protocol))
	})
	return slices.Compact(list)
}

// readPeers collects from the document what edges needs.
func readPeers(tx *patchdb.Tx) (map[string]peer, error) {
	peers := map[string]peer{}
	ids, err := tx.Keys(state.PackageData)
	if err != nil {
		return nil, err
	}
	for _, id := range ids {
		var p peer
		keep, err := patchdb.TxGet[state.ServiceKeep](tx, keepPointer(id))
		if err != nil && !errors.Is(err, patchdb.ErrNotFound) {
			return nil, err
		}
		p.container = keep.Container
		for _, at := range []patchdb.Pointer{state.PackagePointer(id, "currentDependencies"), state.PackagePointer(id, "stateInfo", "manifest", "dependencies")} {
			names, err := tx.Keys(at)
			if err != nil && !errors.Is(err, patchdb.ErrNotFound) {
				return nil, err
			}
			p.needs = append(p.needs, names...)
		}
		hosts := map[string]state.Host{}
		if err := tx.Get(state.PackagePointer(id, "hosts"), &hosts); err != nil {
			return nil, err
		}
		for _, h := range hosts {
			for port, b := range h.Bindings {
				if n, err := strconv.ParseUint(port, 10, 16); err == nil && b.Enabled {
					p.ports = append(p.ports, uint16(n))
				}
			}
			for port, r := range h.BindingRanges {
				first, err := strconv.ParseUint(port, 10, 16)
				for n := first; err == nil && r.Enabled && n < first+uint64(r.NumberOfPorts) && n < 1<<16; n++ {
					p.ports = append(p.ports, uint16(n))
				}
			}
		}
		peers[id] = p
	}
	return peers, nil
}

// syncEdges makes the runtime's rules match the document.
func (m *Manager) syncEdges(ctx context.Context) error {
	m.edgeMu.Lock()
	defer m.edgeMu.Unlock()
	var peers map[string]peer
	err := m.db.View(func(tx *patchdb.Tx) (err error) { peers, err = readPeers(tx); return err })
	if err != nil {
		return fmt.Errorf("service: edges: %w", err)
	}
	list := edges(peers)
	text, _ := json.Marshal(list)
	if string(text) == m.edgesNow {
		return nil
	}
	if err := m.rt.SetEdges(ctx, list); err != nil {
		return err
	}
	m.edgesNow = string(text)
	return nil
}

// concernsEdges reports whether a change at p can change the edges.
func concernsEdges(p patchdb.Pointer) bool {
	parts := strings.Split(string(p), "/") // "", public, packageData, id, member, ...
	switch {
	case len(parts) < 5:
		return true
	case parts[1] == "private":
		return parts[2] == "services" && parts[4] == "container"
	case parts[2] != "packageData":
		return false
	case parts[4] == "hosts":
		return len(parts) < 9 || parts[8] == "enabled" || parts[8] == "numberOfPorts"
	}
	return parts[4] == "currentDependencies" || parts[4] == "stateInfo"
}
