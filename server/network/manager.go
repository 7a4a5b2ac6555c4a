package network

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"reflect"
	"sync"

	"github.com/selfstead/selfstead/nat"
	"github.com/selfstead/selfstead/patchdb"
	"github.com/selfstead/selfstead/server/state"
)

// Forwarder is the part of nat.Controller that Manager needs.
type Forwarder interface {
	Apply(ctx context.Context, cfg nat.Config) error
}

// Options says what a Manager works on; all but Logger and Skip are needed.
type Options struct {
	DB       *patchdb.DB
	NAT      Forwarder
	Gateway4 netip.Addr   // the address that containers see as their gateway
	Gateway6 netip.Addr   // the same for IPv6, for DNS alone; may be unset
	Subnet4  netip.Prefix // the containers' subnets; DNS answers those only
	Subnet6  netip.Prefix
	Skip     string       // links whose names begin so are the containers', not the server's own
	Resolv   string       // file that names the servers for other queries; "" means /etc/resolv.conf
	Logger   *slog.Logger // nil means silent
}

// Manager is safe for concurrent use.
type Manager struct {
	o   Options
	log *slog.Logger

	mu         sync.Mutex // held through a whole Sync
	containers map[string]Container
	own        []Own
	applied    nat.Config

	dns    *nameServer
	cancel context.CancelFunc
	done   sync.WaitGroup
}

// New makes a Manager; nothing happens before Start or Sync.
func New(o Options) (*Manager, error) {
	if o.DB == nil || o.NAT == nil || !o.Gateway4.Is4() {
		return nil, errors.New("network: DB, NAT and Gateway4 are needed")
	}
	log := o.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Manager{o: o, log: log, containers: map[string]Container{}}, nil
}

// Start serves DNS to the containers, applies the forwards of the document and
// follows changes of the server's addresses until Close. A DNS port that
// another program holds is logged and left to it.
func (m *Manager) Start(ctx context.Context) error {
	w, err := watchAddresses()
	if err != nil {
		return err
	}
	ctx, m.cancel = context.WithCancel(context.WithoutCancel(ctx))
	m.dns = newNameServer(m)
	if err := m.dns.start(); err != nil {
		m.log.Warn("containers have no DNS", "err", err)
	}
	m.done.Go(func() {
		defer w.close()
		for w.next(ctx) {
			if err := m.Sync(ctx); err != nil && ctx.Err() == nil {
				m.log.Error("forwards do not match the server's addresses", "err", err)
			}
		}
	})
	if err := m.recall(); err != nil {
		m.Close()
		return err
	}
	if err := m.Sync(ctx); err != nil {
		m.Close()
		return err
	}
	return nil
}

// recall takes the containers that the document knows for running ones, so that
// the forwards of services that outlived the server are never taken away.
// Whoever adopts the services says which do not run.
func (m *Manager) recall() error {
	services, err := patchdb.Get[map[string]state.ServiceKeep](m.o.DB, state.PrivatePointer("services"))
	if errors.Is(err, patchdb.ErrNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("network: services: %w", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for pkg, s := range services {
		v4, _ := netip.ParseAddr(s.Addr4)
		v6, _ := netip.ParseAddr(s.Addr6)
		if _, known := m.containers[pkg]; !known && s.Container != "" {
			m.containers[pkg] = Container{v4, v6}
		}
	}
	return nil
}

// Close stops DNS and following; forwards stay as they are. May be called
// twice.
func (m *Manager) Close() error {
	if m.cancel == nil {
		return nil
	}
	m.cancel()
	m.dns.stop()
	m.done.Wait()
	return nil
}

// OSIP is the server's address as containers see it.
func (m *Manager) OSIP() netip.Addr { return m.o.Gateway4 }

// SetContainer says where the traffic of pkg goes; the zero Container takes its
// forwards and its name away. They match at return.
func (m *Manager) SetContainer(ctx context.Context, pkg string, v4, v6 netip.Addr) error {
	m.mu.Lock()
	if v4.IsValid() || v6.IsValid() {
		m.containers[pkg] = Container{v4, v6}
	} else {
		delete(m.containers, pkg)
	}
	m.mu.Unlock()
	return m.Sync(ctx)
}

// Sync makes the forwards and the addresses in the document match its bindings
// and the server's own addresses. At return both do.
func (m *Manager) Sync(ctx context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	own, err := ownAddresses(m.o.Skip)
	if err != nil {
		return err
	}
	outside := describe(own)
	own = append(own, inside(m.o.Gateway4)...)
	m.own = own
	var cfg nat.Config
	_, err = m.o.DB.Update(ctx, func(tx *patchdb.Tx) error {
		hosts, err := hostsOf(tx)
		if err != nil {
			return err
		}
		for pkg, h := range hosts {
			if refresh(h, own) {
				if err := tx.Put(hostsPointer(pkg), h); err != nil {
					return err
				}
			}
		}
		clients, err := clientAddresses(tx)
		if err != nil {
			return err
		}
		cfg = m.inSubnets(forwards(hosts, m.containers, own, clients))
		p := patchdb.Join(state.ServerInfo, "network")
		var was state.Network
		if err := tx.Get(p, &was); err != nil && !errors.Is(err, patchdb.ErrNotFound) {
			return err
		}
		if reflect.DeepEqual(was, outside) {
			return nil
		}
		return tx.PutAll(p, outside)
	})
	if err != nil {
		return fmt.Errorf("network: addresses in the document: %w", err)
	}
	if err := m.o.NAT.Apply(ctx, cfg); err != nil {
		return fmt.Errorf("network: forwards: %w", err)
	}
	m.applied = cfg
	return nil
}

// inSubnets says of each target which subnet it shares with the other
// containers: what goes between containers directly is the runtime's to judge,
// not nat's. Where only some may come in, nat would let in that whole subnet, so
// it is not said there.
func (m *Manager) inSubnets(cfg nat.Config) nat.Config {
	for i := range cfg.Forwards {
		if len(cfg.Forwards[i].AllowFrom) > 0 {
			continue
		}
		t := &cfg.Forwards[i].Target
		for _, subnet := range []netip.Prefix{m.o.Subnet4, m.o.Subnet6} {
			if subnet.Contains(t.Addr) {
				t.Prefix = subnet.Bits()
			}
		}
	}
	return cfg
}

// Own lists the server's addresses as the last Sync saw them.
func (m *Manager) Own() []Own {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]Own(nil), m.own...)
}

// names is a copy of who has which container, for DNS.
func (m *Manager) names() map[string]Container {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.containers)
}
