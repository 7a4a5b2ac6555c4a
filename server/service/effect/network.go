package effect

import (
	"context"
	"errors"
	"strconv"

	"github.com/selfstead/selfstead/patchdb"
	"github.com/selfstead/selfstead/server/network"
	"github.com/selfstead/selfstead/server/state"
)

var _ = register(map[string]method{
	"bind":                           typed(bind, "internalPort", "preferredExternalPort"),
	"bind-range":                     typed(bindRange, "internalStartPort", "externalStartPort", "numberOfPorts"),
	"clear-bindings":                 typed(clearBindings),
	"export-service-interface":       typed(exportInterface, "name", "type", "addressInfo.internalPort"),
	"export-range-service-interface": typed(exportRangeInterface, "internalStartPort", "name"),
	"clear-service-interfaces":       typed(clearInterfaces),
	"get-service-port-forward":       typed(getPortForward),
	"get-host-info":                  typed(getHostInfo),
	"get-service-interface":          typed(getInterface),
	"list-service-interfaces":        typed(listInterfaces),
	"get-container-ip":               typed(getContainerIP),
	"get-os-ip":                      typed(func(_ context.Context, h *Handler, _ none) (any, error) { return h.Host.OSIP().String(), nil }),
	"get-outbound-gateway":           typed(getOutboundGateway),
})

// network changes the document's hosts and then makes the kernel follow.
func (h *Handler) network(ctx context.Context, fn func(tx *patchdb.Tx) error) error {
	if err := h.update(ctx, fn); err != nil {
		return err
	}
	return h.Host.SyncNetwork(ctx)
}

func bind(ctx context.Context, h *Handler, p struct {
	ID           ID      `json:"id"`
	InternalPort *uint16 `json:"internalPort"`
	state.BindOptions
}) (any, error) {
	if err := p.ID.check(); err != nil {
		return nil, err
	}
	if p.InternalPort == nil || *p.InternalPort == 0 {
		return nil, invalid("internalPort is missing")
	}
	if err := checkSSL(p.AddSSL); err != nil {
		return nil, err
	}
	return nil, h.network(ctx, func(tx *patchdb.Tx) error {
		if err := errors.Join(room(tx, h.own("hosts"), string(p.ID)), room(tx, h.own("hosts", string(p.ID), "bindings"), portKey(*p.InternalPort))); err != nil {
			return err
		}
		return network.Bind(tx, h.Package, string(p.ID), *p.InternalPort, p.BindOptions)
	})
}

func bindRange(ctx context.Context, h *Handler, p struct {
	ID                ID     `json:"id"`
	InternalStartPort uint16 `json:"internalStartPort"`
	ExternalStartPort uint16 `json:"externalStartPort"`
	NumberOfPorts     int    `json:"numberOfPorts"`
}) (any, error) {
	if err := p.ID.check(); err != nil {
		return nil, err
	}
	return nil, h.network(ctx, func(tx *patchdb.Tx) error {
		if err := errors.Join(room(tx, h.own("hosts"), string(p.ID)), room(tx, h.own("hosts", string(p.ID), "bindingRanges"), portKey(p.InternalStartPort))); err != nil {
			return err
		}
		return network.BindRange(tx, h.Package, string(p.ID), p.InternalStartPort, p.ExternalStartPort, p.NumberOfPorts)
	})
}

func clearBindings(ctx context.Context, h *Handler, p struct {
	Except []struct {
		ID           ID     `json:"id"`
		InternalPort uint16 `json:"internalPort"`
	} `json:"except"`
}) (any, error) {
	var except []network.BindingID
	for _, e := range p.Except {
		if err := e.ID.check(); err != nil {
			return nil, err
		}
		except = append(except, network.BindingID{ID: string(e.ID), InternalPort: e.InternalPort})
	}
	return nil, h.network(ctx, func(tx *patchdb.Tx) error { return network.ClearBindings(tx, h.Package, except) })
}

func exportInterface(ctx context.Context, h *Handler, p state.ServiceInterface) (any, error) {
	if err := checkIDs(ID(p.ID), ID(p.AddressInfo.HostID)); err != nil {
		return nil, err
	}
	switch p.Type {
	case "ui", "p2p", "api":
	default:
		return nil, invalid("%q is not one of ui, p2p, api", p.Type)
	}
	return nil, h.network(ctx, func(tx *patchdb.Tx) error {
		at := h.own("hosts", p.AddressInfo.HostID, "bindings", portKey(p.AddressInfo.InternalPort), "interfaces")
		if err := room(tx, at, p.ID); err != nil {
			return err
		}
		return network.ExportInterface(tx, h.Package, p)
	})
}

func exportRangeInterface(ctx context.Context, h *Handler, p struct {
	HostID            ID     `json:"hostId"`
	InternalStartPort uint16 `json:"internalStartPort"`
	state.RangeInterface
}) (any, error) {
	if err := checkIDs(p.HostID, ID(p.RangeInterface.ID)); err != nil {
		return nil, err
	}
	return nil, h.network(ctx, func(tx *patchdb.Tx) error {
		return network.ExportRangeInterface(tx, h.Package, string(p.HostID), p.InternalStartPort, p.RangeInterface)
	})
}

func clearInterfaces(ctx context.Context, h *Handler, p struct {
	Except []string `json:"except"`
}) (any, error) {
	return nil, h.network(ctx, func(tx *patchdb.Tx) error { return network.ClearInterfaces(tx, h.Package, p.Except) })
}

func getPortForward(_ context.Context, h *Handler, p struct {
	PackageID    *ID    `json:"packageId"`
	HostID       ID     `json:"hostId"`
	InternalPort uint16 `json:"internalPort"`
}) (any, error) {
	pkg, err := h.pkg(p.PackageID)
	if err != nil {
		return nil, err
	}
	if err := p.HostID.check(); err != nil {
		return nil, err
	}
	host, err := patchdb.Get[state.Host](h.DB, state.PackagePointer(pkg, "hosts", string(p.HostID)))
	if err == nil {
		if b, ok := host.Bindings[portKey(p.InternalPort)]; ok {
			return b.Net, nil
		}
	} else if !errors.Is(err, patchdb.ErrNotFound) {
		return nil, err
	}
	return nil, Fail(KindNotFound, "%s has no binding of port %d on host %s", pkg, p.InternalPort, p.HostID)
}

func getHostInfo(_ context.Context, h *Handler, p struct {
	PackageID *ID    `json:"packageId"`
	HostID    ID     `json:"hostId"`
	Callback  *int64 `json:"callback"`
}) (any, error) {
	pkg, err := h.pkg(p.PackageID)
	if err != nil {
		return nil, err
	}
	if err := p.HostID.check(); err != nil {
		return nil, err
	}
	at := state.PackagePointer(pkg, "hosts", string(p.HostID))
	h.watch(p.Callback, at)
	return optional[state.Host](h.DB, at)
}

func getInterface(_ context.Context, h *Handler, p struct {
	PackageID *ID    `json:"packageId"`
	Interface ID     `json:"serviceInterfaceId"`
	Callback  *int64 `json:"callback"`
}) (any, error) {
	if err := p.Interface.check(); err != nil {
		return nil, err
	}
	all, err := h.interfaces(p.PackageID, p.Callback)
	if err != nil {
		return nil, err
	}
	if i, ok := all[string(p.Interface)]; ok {
		return i, nil
	}
	return nil, nil
}

func listInterfaces(_ context.Context, h *Handler, p struct {
	PackageID *ID    `json:"packageId"`
	Callback  *int64 `json:"callback"`
}) (any, error) {
	return h.interfaces(p.PackageID, p.Callback)
}

func (h *Handler) interfaces(id *ID, callback *int64) (map[string]state.ServiceInterface, error) {
	pkg, err := h.pkg(id)
	if err != nil {
		return nil, err
	}
	at := state.PackagePointer(pkg, "hosts")
	h.watch(callback, at)
	all := map[string]state.ServiceInterface{}
	hosts, err := patchdb.Get[map[string]state.Host](h.DB, at)
	if err != nil && !errors.Is(err, patchdb.ErrNotFound) {
		return nil, err
	}
	for _, host := range hosts {
		for _, b := range host.Bindings {
			for id, i := range b.Interfaces {
				all[id] = i
			}
		}
	}
	return all, nil
}

func getContainerIP(ctx context.Context, h *Handler, p struct {
	PackageID *ID    `json:"packageId"`
	Callback  *int64 `json:"callback"`
}) (any, error) {
	pkg, err := h.pkg(p.PackageID)
	if err != nil {
		return nil, err
	}
	if pkg != h.Package {
		h.watch(p.Callback, state.PrivatePointer("services", pkg))
	}
	addr, ok, err := h.Host.ContainerIP(ctx, pkg)
	if err != nil || !ok {
		return nil, err
	}
	return addr.String(), nil
}

func getOutboundGateway(_ context.Context, h *Handler, p struct {
	Callback *int64 `json:"callback"`
}) (any, error) {
	own := h.own("outboundGateway")
	h.watch(p.Callback, own)
	h.watch(p.Callback, patchdb.Join(state.ServerInfo, "network", "gateways"))
	if chosen, err := patchdb.Get[*string](h.DB, own); err == nil && chosen != nil {
		return *chosen, nil
	}
	gateways, err := patchdb.Get[map[string]state.Gateway](h.DB, patchdb.Join(state.ServerInfo, "network", "gateways"))
	if err != nil {
		return nil, err
	}
	for name, g := range gateways {
		if g.IsDefault {
			return name, nil
		}
	}
	return nil, Fail(KindNetwork, "the server has no default route")
}

func portKey(port uint16) string { return strconv.Itoa(int(port)) }
