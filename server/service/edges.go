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
	"github.com/selfstead/selfstead/server/network"
	"github.com/selfstead/selfstead/server/state"
)

// peer is what decides who may reach a package's container directly.
type peer struct {
	container string
	clients   []string // packages that may reach it
	ports     []uint16 // that it binds, ranges included
}

// edges lets each package open connections to the bound ports of the packages
// whose client it is, at the address of their container. Everything else
// between containers stays shut.
func edges(peers map[string]peer) []lxcrt.Edge {
	list := []lxcrt.Edge{}
	for id, to := range peers {
		for _, client := range to.clients {
			from, ok := peers[client]
			if !ok || client == id || from.container == "" || to.container == "" {
				continue
			}
			for _, port := range to.ports {
				for _, protocol := range []string{"tcp", "udp"} {
					list = append(list, lxcrt.Edge{From: from.container, To: to.container, Protocol: protocol, Port: port})
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
func readPeers(tx *patchdb.Tx, access map[string][]string) (map[string]peer, error) {
	peers := map[string]peer{}
	ids, err := tx.Keys(state.PackageData)
	if err != nil {
		return nil, err
	}
	for _, id := range ids {
		p := peer{clients: access[id]}
		keep, err := patchdb.TxGet[state.ServiceKeep](tx, keepPointer(id))
		if err != nil && !errors.Is(err, patchdb.ErrNotFound) {
			return nil, err
		}
		p.container = keep.Container
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

// syncAccess makes the kernel match what the document says of who may reach
// whom: the runtime's rules for connections straight to a container, and the
// forwards at the containers' gateway.
func (m *Manager) syncAccess(ctx context.Context) error {
	m.edgeMu.Lock()
	defer m.edgeMu.Unlock()
	var access map[string][]string
	var peers map[string]peer
	err := m.db.View(func(tx *patchdb.Tx) (err error) {
		if access, err = network.Access(tx); err != nil {
			return err
		}
		peers, err = readPeers(tx, access)
		return err
	})
	if err != nil {
		return fmt.Errorf("service: access between packages: %w", err)
	}
	list := edges(peers)
	text, _ := json.Marshal(list)
	if string(text) != m.edgesNow {
		if err := m.rt.SetEdges(ctx, list); err != nil {
			return err
		}
		m.edgesNow = string(text)
	}
	text, _ = json.Marshal(access)
	if string(text) != m.accessNow {
		if err := m.net.Sync(ctx); err != nil {
			return err
		}
		m.accessNow = string(text)
	}
	return nil
}

// concernsAccess reports whether a change at p can change who may reach whom.
func concernsAccess(p patchdb.Pointer) bool {
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
	return parts[4] == "grants" || parts[4] == "stateInfo"
}
