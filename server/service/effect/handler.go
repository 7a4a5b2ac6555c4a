package effect

import (
	"context"
	"encoding/json"
	"net/netip"

	"github.com/selfstead/selfstead/patchdb"
	"github.com/selfstead/selfstead/server/service/rpc"
	"github.com/selfstead/selfstead/server/state"
)

// Host is what effects need beside the document: the unit of the service that
// calls, and through it its neighbours. Implementations are safe to share.
type Host interface {
	// CreateFS makes a subcontainer's root from an image of the package and
	// returns its path inside the container and its name.
	CreateFS(ctx context.Context, image, name string) (path, guid string, err error)
	// DestroyFS removes such a root with everything that runs in it; an
	// unknown name is no error.
	DestroyFS(ctx context.Context, guid string) error
	// MountVolume puts a volume of another package at a place in the container.
	MountVolume(ctx context.Context, location string, target MountTarget) error
	// OwnMount puts a path of one of the package's own volumes at another place
	// in the container, under other ids. file says that a missing source is to
	// be an empty file.
	OwnMount(ctx context.Context, source, target string, readOnly, file bool, idmap []IDMap) error

	Rebuild()
	InitProgress(p json.RawMessage)
	BackupProgress(p json.RawMessage)

	// SyncNetwork makes forwards and available addresses match the document.
	SyncNetwork(ctx context.Context) error
	// OSIP is the server's address as containers see it.
	OSIP() netip.Addr
	// ContainerIP is the IPv4 address of a package's container; false when it
	// has none. It waits while the package is being installed.
	ContainerIP(ctx context.Context, pkg string) (netip.Addr, bool, error)

	// ActionInput asks a package's action for its form.
	ActionInput(ctx context.Context, pkg, action, eventID string, prefill json.RawMessage) (json.RawMessage, error)
	// RunAction runs a package's action with all checks that a user's run has.
	RunAction(ctx context.Context, pkg, action, eventID string, input json.RawMessage) (json.RawMessage, error)
	// CurrentInput is the value an action's form shows now; false when it
	// cannot be known at once.
	CurrentInput(ctx context.Context, pkg, action string) (json.RawMessage, bool)
	// RecheckTasks looks again at all tasks that target the action, later.
	RecheckTasks(action string)

	// Dependency is what the package's archive says of a dependency.
	Dependency(ctx context.Context, id string) (title json.RawMessage, icon *string)

	// DataVersion is the version of the data on the volumes, nil when unset.
	DataVersion() (*string, error)
	SetDataVersion(version *string) error

	// Certificate returns leaf, intermediate and root for the names, Key the
	// private key of the same pair.
	// The callback, when there is one, fires once when it is due for renewal.
	Certificate(ctx context.Context, hostnames []string, algorithm string, callback *int64) ([]string, error)
	Key(ctx context.Context, hostnames []string, algorithm string) (string, error)

	// Watch makes the callback fire once at the next change below or above
	// the pointer.
	Watch(callback int64, p patchdb.Pointer)
	// Forget drops callbacks: those in only, or all but those in except.
	Forget(only, except []int64)
}

// Handler answers the effects of one container.
type Handler struct {
	Package string
	DB      *patchdb.DB
	Host    Host
}

// method is one effect: params as they came in, the result as it goes out.
type method func(ctx context.Context, h *Handler, params json.RawMessage) (any, error)

// typed makes a method of a function with decoded parameters. Those that are
// named must be there and not null, spelled just so; a dot leads into an object.
func typed[P any](fn func(ctx context.Context, h *Handler, p P) (any, error), needed ...string) method {
	return func(ctx context.Context, h *Handler, params json.RawMessage) (any, error) {
		if err := missing(params, needed); err != nil {
			return nil, err
		}
		var p P
		if err := json.Unmarshal(params, &p); err != nil {
			return nil, invalid("%s", err)
		}
		return fn(ctx, h, p)
	}
}

var methods map[string]method

func register(table map[string]method) struct{} {
	if methods == nil {
		methods = map[string]method{}
	}
	for name, m := range table {
		methods[name] = m
	}
	return struct{}{}
}

// Methods lists the effects that are served.
func Methods() []string {
	names := make([]string, 0, len(methods))
	for name := range methods {
		names = append(names, name)
	}
	return names
}

// Call answers one effect. Every error is an *rpc.Error.
func (h *Handler) Call(ctx context.Context, call rpc.Call) (any, error) {
	m, ok := methods[call.Method]
	if !ok {
		return nil, Fail(rpc.CodeMethodNotFound, "%s", call.Method)
	}
	if err := checkSize(call.Method, len(call.Params)); err != nil {
		return nil, err
	}
	result, err := m(context.WithValue(ctx, callKey{}, call.ID), h, call.Params)
	if err != nil {
		return nil, Translate(err)
	}
	return result, nil
}

// none is the parameters of an effect without any.
type none struct{}

// UnmarshalJSON takes everything.
func (*none) UnmarshalJSON([]byte) error { return nil }

// own is a pointer below the caller's own entry.
func (h *Handler) own(rest ...string) patchdb.Pointer {
	return state.PackagePointer(h.Package, rest...)
}

// update changes the document, unless the caller's entry is gone.
func (h *Handler) update(ctx context.Context, fn func(tx *patchdb.Tx) error) error {
	_, err := h.DB.Update(ctx, func(tx *patchdb.Tx) error {
		if !tx.Exists(h.own()) {
			return Fail(KindInvalidRequest, "Service has already been destroyed")
		}
		return fn(tx)
	})
	return err
}

// pkg is the package that a parameter names, the caller when it names none.
func (h *Handler) pkg(id *ID) (string, error) {
	if id == nil {
		return h.Package, nil
	}
	if err := id.check(); err != nil {
		return "", err
	}
	return string(*id), nil
}

// put sets one member of an object of the caller's own entry, while there is
// room for it.
func (h *Handler) put(tx *patchdb.Tx, member string, v any, object ...string) error {
	if err := room(tx, h.own(object...), member); err != nil {
		return err
	}
	return tx.PutAll(h.own(append(object, member)...), v)
}

// watch registers a callback when the caller gave one. It comes before the
// reading, so that no change is lost; a change between the two fires early,
// which callers bear.
func (h *Handler) watch(callback *int64, p patchdb.Pointer) {
	if callback != nil {
		h.Host.Watch(*callback, p)
	}
}

// selection says which members of an object to drop: those in Only, or without
// that list all that are not in Except.
type selection struct {
	Only   []string `json:"only"`
	Except []string `json:"except"`
}

func (s selection) clear(tx *patchdb.Tx, p patchdb.Pointer) error {
	keys, err := tx.Keys(p)
	if err != nil {
		return err
	}
	only, except := set(s.Only), set(s.Except)
	for _, k := range keys {
		if s.Only != nil && !only[k] || s.Only == nil && except[k] {
			continue
		}
		if err := tx.Remove(patchdb.Join(p, k)); err != nil {
			return err
		}
	}
	return nil
}

func set[T comparable](list []T) map[T]bool {
	m := make(map[T]bool, len(list))
	for _, v := range list {
		m[v] = true
	}
	return m
}
