package effect_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/selfstead/selfstead/patchdb"
	"github.com/selfstead/selfstead/server/authority"
	"github.com/selfstead/selfstead/server/problem"
	"github.com/selfstead/selfstead/server/service/effect"
	"github.com/selfstead/selfstead/server/service/rpc"
	"github.com/selfstead/selfstead/server/state"
	"github.com/stretchr/testify/require"
)

// host is an effect.Host that remembers what it was asked.
type host struct {
	mu      sync.Mutex
	calls   []string
	watched map[int64][]patchdb.Pointer
	version *string
	inputs  map[string]string // package/action: current value
}

func (h *host) note(format string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.calls = append(h.calls, fmt.Sprintf(format, args...))
}

func (h *host) CreateFS(_ context.Context, image, name string) (string, string, error) {
	if image == "none" {
		return "", "", effect.Fail(effect.KindNotFound, "no image none")
	}
	h.note("create-fs %s %s", image, name)
	return "/media/startos/subcontainers/G", "G", nil
}
func (h *host) DestroyFS(_ context.Context, guid string) error {
	h.note("destroy-fs %s", guid)
	return nil
}
func (h *host) MountVolume(_ context.Context, location string, t effect.MountTarget) error {
	h.note("mount %s %s/%s/%s %v %v", location, t.PackageID, t.VolumeID, *t.Subpath, t.ReadOnly, t.IDMap)
	return nil
}
func (h *host) OwnMount(_ context.Context, source, target string, ro, _ bool, m []effect.IDMap) error {
	h.note("own-mount %s %s %v %v", source, target, ro, m)
	return nil
}
func (h *host) Rebuild()                          { h.note("rebuild") }
func (h *host) InitProgress(p json.RawMessage)    { h.note("init-progress %s", p) }
func (h *host) BackupProgress(p json.RawMessage)  { h.note("backup-progress %s", p) }
func (h *host) SyncNetwork(context.Context) error { h.note("sync"); return nil }
func (h *host) OSIP() netip.Addr                  { return netip.MustParseAddr("10.43.0.1") }
func (h *host) RecheckTasks(action string)        { h.note("recheck %s", action) }
func (h *host) DataVersion() (*string, error)     { return h.version, nil }
func (h *host) SetDataVersion(v *string) error    { h.version = v; return nil }
func (h *host) Forget(only, except []int64)       { h.note("forget %v %v", only, except) }
func (h *host) Watch(id int64, p patchdb.Pointer) { h.watched[id] = append(h.watched[id], p) }
func (h *host) ContainerIP(_ context.Context, pkg string) (netip.Addr, bool, error) {
	return netip.MustParseAddr("10.43.0.7"), pkg == "self" || pkg == "other", nil
}
func (h *host) ActionInput(_ context.Context, pkg, action, event string, prefill json.RawMessage) (json.RawMessage, error) {
	h.note("input %s/%s %s %s", pkg, action, event, prefill)
	return json.RawMessage(`{"eventId":"E","spec":{},"value":null}`), nil
}
func (h *host) RunAction(_ context.Context, pkg, action, event string, input json.RawMessage) (json.RawMessage, error) {
	h.note("run %s/%s %s %s", pkg, action, event, input)
	return json.RawMessage(`{"version":"1","title":"t","message":null,"result":null}`), nil
}
func (h *host) CurrentInput(_ context.Context, pkg, action string) (json.RawMessage, bool) {
	v, ok := h.inputs[pkg+"/"+action]
	return json.RawMessage(v), ok
}
func (h *host) Dependency(_ context.Context, id string) (json.RawMessage, *string) {
	return json.RawMessage(`{"en_US":"Other"}`), nil
}
func (h *host) Certificate(context.Context, []string, string, *int64) ([]string, error) {
	return nil, effect.Fail(effect.KindOpenSSL, "none")
}
func (h *host) Key(context.Context, []string, string) (string, error) {
	return "", effect.Fail(effect.KindOpenSSL, "none")
}

type bench struct {
	t      testing.TB
	db     *patchdb.DB
	host   *host
	folder *rpc.Folder
}

func entry(manifest string) state.Package {
	return state.Package{
		StateInfo:           state.StateInfo{State: "installed", Manifest: json.RawMessage(manifest)},
		StatusInfo:          state.StatusInfo{Health: map[string]state.HealthResult{}, Desired: state.DesiredStatus{Main: "running"}},
		CurrentDependencies: map[string]json.RawMessage{}, Actions: map[string]json.RawMessage{},
		Tasks: map[string]json.RawMessage{}, Hosts: map[string]state.Host{}, Plugin: map[string]any{},
	}
}

func newBench(t testing.TB) *bench {
	t.Helper()
	db, err := patchdb.Open(filepath.Join(t.TempDir(), "state.db"), patchdb.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { db.Close() })
	doc := state.New()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	other := entry(`{"id":"other","version":"2.0.0:1","satisfies":["1.9.0:0"],"volumes":["main"]}`)
	other.StatusInfo.Started = &now
	other.StatusInfo.Health["web"] = state.HealthResult{Name: "Web", Result: "success"}
	other.Actions["open"] = json.RawMessage(`{"name":"Open","description":"","warning":null,"visibility":"enabled","allowedStatuses":"any","hasInput":false,"group":null,"access":"public"}`)
	other.Actions["kin"] = json.RawMessage(`{"name":"Kin","description":"","warning":null,"visibility":"enabled","allowedStatuses":"any","hasInput":true,"group":null,"access":"dependent"}`)
	other.Actions["mine"] = json.RawMessage(`{"name":"Mine","description":"","warning":null,"visibility":"enabled","allowedStatuses":"any","hasInput":false,"group":null}`)
	self := entry(`{"id":"self","version":"1.0.0:0","satisfies":[],"plugins":["url-v0"]}`)
	self.StatusInfo.Started = &now
	doc.Public.PackageData = map[string]state.Package{"self": self, "other": other}
	doc.Public.ServerInfo.Network.Gateways = map[string]state.Gateway{"eth0": {Name: "eth0", IsDefault: true}, "wlan0": {Name: "wlan0"}}
	_, err = db.Put(t.Context(), "", doc)
	require.NoError(t, err)

	f, err := rpc.OpenFolder(t.TempDir())
	require.NoError(t, err)
	t.Cleanup(func() { f.Close() })
	l, err := f.Listen("host.sock", os.Geteuid())
	require.NoError(t, err)
	h := &host{watched: map[int64][]patchdb.Pointer{}, inputs: map[string]string{}}
	s := rpc.Serve(l, (&effect.Handler{Package: "self", DB: db, Host: h}).Call, rpc.ServerOptions{})
	t.Cleanup(func() { s.Close() })
	return &bench{t, db, h, f}
}

// again makes a call under a name, to a handler that has not seen it.
func (b *bench) again(id, method, params string) {
	b.t.Helper()
	h := &effect.Handler{Package: "self", DB: b.db, Host: b.host}
	_, err := h.Call(b.t.Context(), rpc.Call{Method: method, Params: json.RawMessage(params), ID: id})
	require.NoError(b.t, err)
}

// call makes one effect as the runtime does: one connection, one line, then the
// end of the sending side.
func (b *bench) call(method, params string) (result string, e *rpc.Error) {
	b.t.Helper()
	conn, err := b.folder.Dial(b.t.Context(), "host.sock")
	require.NoError(b.t, err)
	defer conn.Close()
	if params == "" {
		params = "{}"
	}
	_, err = fmt.Fprintf(conn, `{"id":7,"method":%q,"params":%s}`+"\n", method, params)
	require.NoError(b.t, err)
	require.NoError(b.t, conn.(*net.UnixConn).CloseWrite())
	var answer struct {
		ID     int
		Result json.RawMessage
		Error  *rpc.Error
	}
	require.NoError(b.t, json.NewDecoder(conn).Decode(&answer))
	require.Equal(b.t, 7, answer.ID)
	return string(answer.Result), answer.Error
}

func (b *bench) ok(method, params, want string) {
	b.t.Helper()
	got, e := b.call(method, params)
	require.Nil(b.t, e, "%s %s: %v", method, params, e)
	require.JSONEq(b.t, want, got, "%s %s", method, params)
}

func (b *bench) fails(method, params string, code int) {
	b.t.Helper()
	_, e := b.call(method, params)
	require.NotNil(b.t, e, "%s %s", method, params)
	require.Equal(b.t, code, e.Code, "%s %s: %v", method, params, e)
	require.NotEmpty(b.t, e.Details())
}

func (b *bench) doc(p string) string {
	b.t.Helper()
	v, err := patchdb.Get[json.RawMessage](b.db, patchdb.Pointer("/public/packageData/self"+p))
	require.NoError(b.t, err, p)
	return string(v)
}

// The list is what packages of the SDK can call; start-container's own
// commands are not on it.
func TestMethods(t *testing.T) {
	got := effect.Methods()
	for _, m := range strings.Fields(`clear-callbacks action.export action.clear action.get-input action.run action.create-task
		action.clear-tasks restart shutdown rebuild get-status set-main-status set-health set-dependencies get-dependencies
		check-dependencies get-installed-packages get-service-manifest mount subcontainer.create-fs subcontainer.destroy-fs bind
		bind-range clear-bindings get-service-port-forward get-host-info get-container-ip get-os-ip get-outbound-gateway
		export-service-interface export-range-service-interface clear-service-interfaces get-service-interface
		list-service-interfaces get-ssl-certificate get-ssl-key get-system-smtp set-data-version get-data-version
		set-init-progress set-backup-progress notification.create plugin.url.register plugin.url.export-url plugin.url.clear-urls echo`) {
		require.Contains(t, got, m)
	}
	for _, m := range []string{"bind-mount", "subcontainer.launch", "subcontainer.exec", "pipe-wrap"} {
		require.NotContains(t, got, m)
	}
	require.True(t, slices.IsSorted(slices.Sorted(slices.Values(got))))
	newBench(t).fails("subcontainer.launch", "", rpc.CodeMethodNotFound)
}

// Whatever the runtime offers to packages is served.
func TestRuntimeMethods(t *testing.T) {
	source, err := os.ReadFile("../../../lxcrt/guest/node/src/effects.ts")
	require.NoError(t, err)
	_, list, ok := strings.Cut(string(source), "METHODS = [")
	require.True(t, ok)
	list, _, _ = strings.Cut(list, "]")
	n := 0
	for name := range strings.FieldsFuncSeq(list, func(r rune) bool { return strings.ContainsRune("', \n", r) }) {
		require.Contains(t, effect.Methods(), name)
		n++
	}
	require.Greater(t, n, 40)
	require.Contains(t, effect.Methods(), "clear-callbacks")
}

func TestControl(t *testing.T) {
	b := newBench(t)
	b.ok("echo", `{"message":"hi"}`, `"hi"`)
	b.ok("get-status", `{"eventId":"x"}`, `{"health":{},"error":null,"started":"2026-01-02T03:04:05Z","desired":{"main":"running"}}`)
	b.ok("get-status", `{"packageId":"nix","callback":4}`, `null`)
	require.Equal(t, []patchdb.Pointer{"/public/packageData/nix/statusInfo"}, b.host.watched[4])
	b.fails("get-status", `{"packageId":"../x"}`, effect.KindInvalidID)

	b.ok("set-health", `{"id":"web","name":"Web","result":"starting"}`, `null`)
	require.JSONEq(t, `{"name":"Web","result":"starting","message":null}`, b.doc("/statusInfo/health/web"))
	before := b.db.Revision()
	b.ok("set-health", `{"id":"web","name":"Web","result":"starting","message":null}`, `null`)
	require.Equal(t, before, b.db.Revision(), "unchanged health costs no revision")
	b.ok("set-health", `{"id":"web","name":"Web","result":"failure","message":"port closed"}`, `null`)
	b.fails("set-health", `{"id":"web","name":"Web","result":"failure"}`, rpc.CodeInvalidParams)
	b.fails("set-health", `{"id":"web","name":"Web","result":"great"}`, rpc.CodeInvalidParams)
	b.fails("set-health", `{"id":"We b","name":"Web","result":"success"}`, effect.KindInvalidID)
	b.fails("set-health", `[]`, rpc.CodeInvalidParams)

	b.ok("restart", "", `null`)
	require.JSONEq(t, `{"main":"restarting","restartAgain":false}`, b.doc("/statusInfo/desired"))
	require.JSONEq(t, `{}`, b.doc("/statusInfo/health"))
	require.JSONEq(t, `"restarting"`, b.doc("/state"))
	b.ok("shutdown", "", `null`)
	require.JSONEq(t, `"stopped"`, b.doc("/desiredState"))
	require.JSONEq(t, `"stopping"`, b.doc("/state"))
	b.ok("set-main-status", `{"status":"stopped"}`, `null`)
	require.JSONEq(t, `null`, b.doc("/statusInfo/started"))
	b.ok("rebuild", "", `null`)
	b.ok("set-init-progress", `{"progress":{"overall":true,"phases":[]}}`, `null`)
	b.ok("clear-callbacks", `{"only":[1,2]}`, `null`)
	b.ok("clear-callbacks", `{"except":[]}`, `null`)
	b.fails("clear-callbacks", ``, rpc.CodeInvalidParams)
	require.Equal(t, []string{"rebuild", `init-progress {"overall":true,"phases":[]}`, "forget [1 2] []", "forget [] []"}, b.host.calls)

	b.ok("get-data-version", "", `null`)
	b.ok("set-data-version", `{"version":"1.0.0:0"}`, `null`)
	b.ok("get-data-version", "", `"1.0.0:0"`)
	b.ok("set-data-version", `{"version":null}`, `null`)
	b.ok("get-data-version", "", `null`)
}

// What has to be there is refused when it is missing, null, or spelled another
// way; progress is what a tracker can send.
func TestParams(t *testing.T) {
	b := newBench(t)
	for _, params := range []string{`{}`, `null`, `[]`, `1`, `{"message":null}`, `{"Message":"x"}`} {
		b.fails("echo", params, rpc.CodeInvalidParams)
	}
	face := `{"id":"x","name":"X","type":"ui","addressInfo":%s}`
	for _, info := range []string{`null`, `{}`, `5`, `{"hostId":"h","internalPort":null}`} {
		b.fails("export-service-interface", fmt.Sprintf(face, info), rpc.CodeInvalidParams)
	}
	deep := strings.Repeat(`{"overall":null,"phases":[{"name":"p","progress":`, 40) + `true` + strings.Repeat(`}]}`, 40)
	for progress, code := range map[string]int{
		`null`: 0, `true`: 0, `false`: 0, `{"done":1,"total":null,"units":null}`: 0, `{"done":1}`: 0,
		`{"overall":true,"phases":[]}`: 0, `{"overall":null,"phases":[{"name":"p","progress":{"overall":null,"phases":[]}}]}`: 0,
		`"half"`: rpc.CodeInvalidParams, `[]`: rpc.CodeInvalidParams, `{}`: rpc.CodeInvalidParams, `{"done":-1}`: rpc.CodeInvalidParams,
		`{"done":1,"units":"feet"}`: rpc.CodeInvalidParams, `{"phases":[{"progress":true}]}`: rpc.CodeInvalidParams,
		`{"phases":[{"name":"p","progress":"x"}]}`: rpc.CodeInvalidParams, deep: rpc.CodeInvalidParams,
	} {
		if code == 0 {
			b.ok("set-init-progress", `{"progress":`+progress+`}`, `null`)
			continue
		}
		b.fails("set-init-progress", `{"progress":`+progress+`}`, code)
	}
}

func TestEffectsAfterRemoval(t *testing.T) {
	b := newBench(t)
	_, err := b.db.Update(t.Context(), func(tx *patchdb.Tx) error { return tx.Remove("/public/packageData/self") })
	require.NoError(t, err)
	b.fails("set-health", `{"id":"web","name":"Web","result":"success"}`, effect.KindInvalidRequest)
	b.fails("bind", `{"id":"ui","internalPort":80,"preferredExternalPort":80}`, effect.KindInvalidRequest)
}

func TestSubcontainersAndMounts(t *testing.T) {
	b := newBench(t)
	b.ok("subcontainer.create-fs", `{"imageId":"web","name":null,"eventId":"x"}`, `["/media/startos/subcontainers/G","G"]`)
	b.ok("subcontainer.create-fs", `{"imageId":"web","name":"db"}`, `["/media/startos/subcontainers/G","G"]`)
	b.fails("subcontainer.create-fs", `{"imageId":"none"}`, effect.KindNotFound)
	b.ok("subcontainer.destroy-fs", `{"guid":"G"}`, `null`)
	b.ok("mount", `{"location":"/media/x","target":{"packageId":"other","volumeId":"main","subpath":"a/b","readonly":true,"idmap":[{"fromId":0,"toId":5,"range":1}],"type":"pointer","filetype":"directory"}}`, `null`)
	b.fails("mount", `{"location":"/media/x","target":{"packageId":"other","volumeId":"../main","subpath":null,"readonly":true,"idmap":[]}}`, effect.KindInvalidID)
	b.fails("mount", `{"target":{"packageId":"other","volumeId":"main","readonly":true}}`, rpc.CodeInvalidParams)
	b.ok("selfstead.bind-mount", `{"source":"/media/startos/volumes/main","target":"/x","recursive":true,"idmap":[{"fromId":0,"toId":1000,"range":1}]}`, `null`)
	require.Equal(t, []string{
		"create-fs web subcontainer-web", "create-fs web db", "destroy-fs G",
		"mount /media/x other/main/a/b true [{0 5 1}]", "own-mount /media/startos/volumes/main /x false [{0 1000 1}]",
	}, b.host.calls)
}

func TestActions(t *testing.T) {
	b := newBench(t)
	meta := `{"name":"Set name","description":"d","warning":null,"allowedStatuses":"any","hasInput":true,"group":null}`
	b.ok("action.export", `{"id":"set-name","metadata":`+meta+`}`, `null`)
	b.ok("action.export", `{"id":"off","metadata":{"name":"Off","description":"d","warning":"w","visibility":{"disabled":"later"},"allowedStatuses":"only-running","hasInput":false,"group":"g","access":"public"}}`, `null`)
	require.JSONEq(t, `{"name":"Set name","description":"d","warning":null,"visibility":"enabled","allowedStatuses":"any","hasInput":true,"group":null}`, b.doc("/actions/set-name"))
	b.fails("action.export", `{"id":"x","metadata":{"name":"X","allowedStatuses":"never"}}`, rpc.CodeInvalidParams)
	b.ok("action.get-input", `{"actionId":"set-name","eventId":"EV","prefill":{"a":1}}`, `{"eventId":"E","spec":{},"value":null}`)
	b.ok("action.run", `{"actionId":"set-name","input":{"a":1},"eventId":"EV"}`, `{"version":"1","title":"t","message":null,"result":null}`)
	b.ok("action.run", `{"actionId":"off"}`, `{"version":"1","title":"t","message":null,"result":null}`)
	b.fails("action.run", `{"actionId":"nix"}`, effect.KindNotFound)
	b.ok("action.run", `{"packageId":"other","actionId":"open","input":null}`, `{"version":"1","title":"t","message":null,"result":null}`)
	b.fails("action.run", `{"packageId":"other","actionId":"mine"}`, effect.KindInvalidRequest)
	b.fails("action.run", `{"packageId":"other","actionId":"kin"}`, effect.KindInvalidRequest)
	b.ok("set-dependencies", `{"dependencies":[{"kind":"exists","id":"other","versionRange":"*"}]}`, `null`)
	b.ok("action.run", `{"packageId":"other","actionId":"kin","input":{},"eventId":"EV"}`, `{"version":"1","title":"t","message":null,"result":null}`)
	require.Equal(t, []string{
		"recheck set-name", "recheck off", `input self/set-name EV {"a":1}`,
		"input self/set-name EV ", `run self/set-name EV {"a":1}`, "run self/off  ", "run other/open  null",
		"input other/kin EV ", "run other/kin EV {}",
	}, b.host.calls)
	b.ok("action.clear", `{"except":["off"]}`, `null`)
	_, err := patchdb.Get[json.RawMessage](b.db, "/public/packageData/self/actions/set-name")
	require.ErrorIs(t, err, patchdb.ErrNotFound)
}

func TestTasks(t *testing.T) {
	b := newBench(t)
	b.ok("action.create-task", `{"replayId":"any text/~","packageId":"other","actionId":"open","severity":"important","reason":"r"}`, `null`)
	require.JSONEq(t, `{"task":{"packageId":"other","actionId":"open","severity":"important","reason":"r","when":null,"input":null},"active":true}`, b.doc("/tasks/any text~1~0"))
	when := `"when":{"condition":"input-not-matches","once":false},"input":{"kind":"partial","accept":[{"a":1}],"set":{"a":1}}`
	b.ok("action.create-task", `{"replayId":"t","packageId":"other","actionId":"kin","severity":"critical",`+when+`}`, `null`)
	require.Contains(t, b.doc("/tasks/t"), `"active":true`)
	require.JSONEq(t, `"stopped"`, b.doc("/desiredState"), "an active critical task stops its owner")
	b.host.inputs["other/kin"] = `{"a":1,"b":2}`
	b.ok("action.create-task", `{"replayId":"t","packageId":"other","actionId":"kin","severity":"critical",`+when+`}`, `null`)
	require.Contains(t, b.doc("/tasks/t"), `"active":false`)
	delete(b.host.inputs, "other/kin")
	b.ok("action.create-task", `{"replayId":"t","packageId":"other","actionId":"kin","severity":"critical",`+when+`}`, `null`)
	require.Contains(t, b.doc("/tasks/t"), `"active":false`, "what is not known stays")
	b.host.inputs["other/kin"] = `{"a":1}`
	b.ok("action.create-task", `{"replayId":"once","packageId":"other","actionId":"kin",`+strings.Replace(when, "false", "true", 1)+`}`, `null`)
	b.fails("action.create-task", `{"replayId":"x","packageId":"other","actionId":"kin","when":{"condition":"input-not-matches","once":false}}`, effect.KindInvalidRequest)
	b.fails("action.create-task", `{"replayId":"x","packageId":"other","actionId":"kin","severity":"huge"}`, rpc.CodeInvalidParams)
	b.ok("action.clear-tasks", `{"only":["t","nix","once"]}`, `null`)
	b.ok("action.clear-tasks", `{"except":["any text/~"]}`, `null`)
	require.Contains(t, b.doc("/tasks"), "any text/~")
	b.ok("action.clear-tasks", `{"except":[]}`, `null`)
	require.JSONEq(t, `{}`, b.doc("/tasks"))
}

func TestDependencies(t *testing.T) {
	b := newBench(t)
	b.ok("set-dependencies", `{"dependencies":[{"kind":"running","id":"other","healthChecks":["web"],"versionRange":">=1"},{"kind":"exists","id":"absent","versionRange":"*"}]}`, `null`)
	b.ok("get-dependencies", "", `[{"kind":"exists","id":"absent","versionRange":"*"},{"kind":"running","id":"other","versionRange":">=1","healthChecks":["web"]}]`)
	require.JSONEq(t, `{"title":{"en_US":"Other"},"icon":null,"kind":"running","versionRange":">=1","healthChecks":["web"]}`, b.doc("/currentDependencies/other"))
	b.ok("action.create-task", `{"replayId":"t","packageId":"other","actionId":"open"}`, `null`)
	b.ok("check-dependencies", `{"packageIds":["other"]}`, `[{"packageId":"other","title":"Other","installedVersion":"2.0.0:1","satisfies":["1.9.0:0"],"isRunning":true,
		"tasks":{"t":{"task":{"packageId":"other","actionId":"open","severity":"important","reason":null,"when":null,"input":null},"active":true}},
		"healthChecks":{"web":{"name":"Web","result":"success","message":null}}}]`)
	all, e := b.call("check-dependencies", "")
	require.Nil(t, e)
	require.Contains(t, all, `{"packageId":"absent","title":"Other","installedVersion":null,"satisfies":[],"isRunning":false,"tasks":{},"healthChecks":{}}`)
	b.ok("check-dependencies", `{"packageIds":["self"]}`, `[]`)
	ids, e := b.call("get-installed-packages", "")
	require.Nil(t, e)
	require.ElementsMatch(t, []string{"self", "other"}, decode[[]string](t, ids))
	b.ok("get-service-manifest", `{"packageId":"other","callback":9}`, `{"id":"other","version":"2.0.0:1","satisfies":["1.9.0:0"],"volumes":["main"]}`)
	b.fails("get-service-manifest", `{"packageId":"absent"}`, effect.KindNotFound)

	// While it is being updated its dependents look ahead, and read the old manifest.
	_, err := b.db.Put(t.Context(), "/public/packageData/other/stateInfo/installingInfo", map[string]any{"newManifest": map[string]any{"version": "3.0.0:0", "satisfies": []string{}}})
	require.NoError(t, err)
	during, e := b.call("check-dependencies", `{"packageIds":["other"]}`)
	require.Nil(t, e)
	require.Contains(t, during, `"installedVersion":"3.0.0:0","satisfies":[]`)
	b.ok("get-service-manifest", `{"packageId":"other"}`, `{"id":"other","version":"2.0.0:1","satisfies":["1.9.0:0"],"volumes":["main"]}`)
	b.ok("set-dependencies", `{"dependencies":[]}`, `null`)
	b.ok("get-dependencies", "", `[]`)
	b.fails("set-dependencies", `{"dependencies":[{"kind":"wanted","id":"other"}]}`, rpc.CodeInvalidParams)
}

func TestNetwork(t *testing.T) {
	b := newBench(t)
	b.ok("bind", `{"id":"ui-multi","internalPort":80,"preferredExternalPort":80,"addSsl":{"preferredExternalPort":443,"scheme":"https"},"secure":null,"protocol":null,"stack":"at x"}`, `null`)
	b.ok("bind", `{"id":"ui-multi","internalPort":8332,"preferredExternalPort":58332,"addSsl":null,"secure":{"ssl":false}}`, `null`)
	require.Contains(t, b.host.calls, "sync")
	forward, e := b.call("get-service-port-forward", `{"hostId":"ui-multi","internalPort":8332}`)
	require.Nil(t, e)
	require.JSONEq(t, `{"assignedPort":58332,"assignedSslPort":null}`, forward)
	b.fails("get-service-port-forward", `{"hostId":"ui-multi","internalPort":1}`, effect.KindNotFound)
	b.fails("get-service-port-forward", `{"hostId":"nix","internalPort":1}`, effect.KindNotFound)
	b.fails("bind", `{"id":"ui-multi","preferredExternalPort":80}`, rpc.CodeInvalidParams)
	ssl := func(members string) string {
		return `{"id":"tls","internalPort":443,"preferredExternalPort":443,"secure":null,"addSsl":{"preferredExternalPort":443,` + members + `}}`
	}
	root, err := authority.Open(authority.Options{Dir: t.TempDir()})
	require.NoError(t, err)
	issued, err := root.Issue([]string{"self.startos"}, authority.ECDSA)
	require.NoError(t, err)
	leaf, err := json.Marshal(issued.Chain[0])
	require.NoError(t, err)
	for _, good := range []string{
		`"alpn":null`, `"alpn":"reflect"`, `"alpn":{"specified":["h2",[104,50]]},"addXForwardedHeaders":true`, `"upstreamCertValidation":"disable"`,
		`"upstreamCertValidation":{"certificate":` + string(leaf) + `}`, `"auth":{"type":"bearer","tokens":["t"],"realm":null}`,
		`"auth":{"type":"basic","credentials":[{"username":"u","password":"p"}]}`,
	} {
		b.ok("bind", ssl(good), `null`)
	}
	for _, bad := range []string{
		`"alpn":"h2"`, `"alpn":{}`, `"alpn":["h2"]`, `"alpn":{"specified":"h2"}`, `"upstreamCertValidation":"maybe"`, `"upstreamCertValidation":{"certificate":"x"}`,
		`"auth":"secret"`, `"auth":{"type":"bearer"}`, `"auth":{"type":"basic","credentials":[{"username":"u"}]}`, `"auth":{"type":"digest"}`, `"auth":{"type":"bearer","tokens":"t"}`,
	} {
		b.fails("bind", ssl(bad), rpc.CodeInvalidParams)
	}
	b.ok("bind-range", `{"id":"rtc","internalStartPort":40000,"externalStartPort":40000,"numberOfPorts":10}`, `null`)

	i := `{"id":"ui","name":"UI","description":"d","masked":false,"addressInfo":{"username":null,"hostId":"ui-multi","internalPort":80,"scheme":"http","sslScheme":"https","suffix":""},"type":"ui"}`
	b.ok("export-service-interface", i, `null`)
	b.fails("export-service-interface", strings.ReplaceAll(i, `"internalPort":80`, `"internalPort":81`), effect.KindNotFound)
	b.ok("export-range-service-interface", `{"hostId":"rtc","internalStartPort":40000,"id":"media","name":"M","description":"d","scheme":null}`, `null`)
	b.ok("get-service-interface", `{"serviceInterfaceId":"ui","callback":3}`, i)
	b.ok("get-service-interface", `{"serviceInterfaceId":"media"}`, `null`)
	b.ok("list-service-interfaces", `{}`, `{"ui":`+i+`}`)
	b.ok("list-service-interfaces", `{"packageId":"nix"}`, `{}`)
	b.ok("clear-service-interfaces", `{"except":[]}`, `null`)
	b.ok("list-service-interfaces", `{}`, `{}`)

	b.ok("clear-bindings", `{"except":[{"id":"ui-multi","internalPort":80}]}`, `null`)
	h, e := b.call("get-host-info", `{"hostId":"ui-multi","callback":5}`)
	require.Nil(t, e)
	got := decode[state.Host](t, h)
	require.True(t, got.Bindings["80"].Enabled)
	require.False(t, got.Bindings["8332"].Enabled)
	require.EqualValues(t, 58332, *got.Bindings["8332"].Net.AssignedPort)
	b.ok("get-host-info", `{"hostId":"nix"}`, `null`)
	require.Equal(t, []patchdb.Pointer{"/public/packageData/self/hosts/ui-multi"}, b.host.watched[5])

	b.ok("get-os-ip", "", `"10.43.0.1"`)
	b.ok("get-container-ip", `{}`, `"10.43.0.7"`)
	b.ok("get-container-ip", `{"packageId":"nix","callback":8}`, `null`)
	require.Equal(t, []patchdb.Pointer{"/private/services/nix"}, b.host.watched[8])
	b.ok("get-outbound-gateway", "", `"eth0"`)
}

func TestSystem(t *testing.T) {
	b := newBench(t)
	b.ok("get-system-smtp", `{"callback":1}`, `null`)
	_, err := b.db.Put(t.Context(), state.SMTPPointer, state.SMTP{Host: "h", Port: 587, From: "a@h", Username: "u", Security: "tls"})
	require.NoError(t, err)
	b.ok("get-system-smtp", ``, `{"host":"h","port":587,"from":"a@h","username":"u","password":null,"security":"tls"}`)
	b.fails("get-ssl-certificate", `{"hostnames":["self.startos"]}`, effect.KindOpenSSL)
	b.fails("get-ssl-key", `{"hostnames":["self.startos"],"algorithm":"rsa"}`, rpc.CodeInvalidParams)
	b.ok("notification.create", `{"level":"info","title":"T","message":"M"}`, `null`)
	b.ok("notification.create", `{"level":"error","title":"T","message":"M","data":"# x"}`, `null`)
	b.fails("notification.create", `{"level":"loud","title":"T","message":"M"}`, rpc.CodeInvalidParams)
	list, err := patchdb.Get[[]state.Notification](b.db, "/private/notifications")
	require.NoError(t, err)
	require.Len(t, list, 2)
	require.Equal(t, []any{uint32(0), nil, uint32(2), uint32(2), "# x"}, []any{list[0].Code, list[0].Data, list[1].ID, list[1].Code, list[1].Data})
	count, err := patchdb.Get[int](b.db, "/public/serverInfo/unreadNotificationCount")
	require.NoError(t, err)
	require.Equal(t, 2, count)
}

// A package whose manifest says so provides addresses for others' bindings.
func TestURLPlugin(t *testing.T) {
	b := newBench(t)
	b.ok("plugin.url.register", `{"tableAction":"table"}`, `null`)
	require.JSONEq(t, `{"url":{"tableAction":"table"}}`, b.doc("/plugin"))
	host := `{"bindings":{"80":{"enabled":true,"options":{"preferredExternalPort":80,"addSsl":null,"secure":null},"net":{"assignedPort":null,"assignedSslPort":null},
		"addresses":{"enabled":[],"disabled":[],"available":[],"guaAccess":{}},"interfaces":{}}},"bindingRanges":{},"publicDomains":{},"privateDomains":{},"portForwards":[]}`
	_, err := b.db.Put(t.Context(), "/public/packageData/other/hosts", json.RawMessage(`{"ui":`+host+`}`))
	require.NoError(t, err)
	available := func() string {
		v, err := patchdb.Get[json.RawMessage](b.db, "/public/packageData/other/hosts/ui/bindings/80/addresses/available")
		require.NoError(t, err)
		return string(v)
	}
	name := func(h string) string {
		return `{"packageId":"other","hostId":"ui","internalPort":80,"ssl":false,"public":true,"hostname":"` + h + `","port":80,"info":{"k":1}}`
	}
	for _, h := range []string{"a.onion", "b.onion", "a.onion"} {
		b.ok("plugin.url.export-url", `{"hostnameInfo":`+name(h)+`,"removeAction":"drop","overflowActions":["more"]}`, `null`)
	}
	require.Equal(t, 2, strings.Count(available(), `"kind":"plugin"`))
	require.Contains(t, available(), `{"ssl":false,"public":true,"hostname":"b.onion","port":80,"metadata":{"kind":"plugin","packageId":"self","removeAction":"drop","overflowActions":["more"],"info":{"k":1}}}`)
	b.fails("plugin.url.export-url", `{"hostnameInfo":`+strings.Replace(name("c"), `"packageId":"other"`, `"packageId":null`, 1)+`}`, effect.KindNotFound)
	b.fails("plugin.url.export-url", `{"hostnameInfo":`+strings.Replace(name("c"), `"internalPort":80`, `"internalPort":81`, 1)+`}`, effect.KindNotFound)
	b.ok("plugin.url.clear-urls", `{"except":[`+name("b.onion")+`]}`, `null`)
	require.Equal(t, 1, strings.Count(available(), `"kind":"plugin"`))
	b.ok("plugin.url.clear-urls", `{"except":[]}`, `null`)
	require.JSONEq(t, `[]`, available())
	_, err = b.db.Put(t.Context(), "/public/packageData/self/stateInfo/manifest/plugins", []string{})
	require.NoError(t, err)
	b.fails("plugin.url.clear-urls", `{"except":[]}`, effect.KindInvalidRequest)
	// The version that it is being updated to may be the first that is a plugin.
	_, err = b.db.Put(t.Context(), "/public/packageData/self/stateInfo/installingInfo", map[string]any{"newManifest": map[string]any{"plugins": []string{"url-v0"}}})
	require.NoError(t, err)
	b.ok("plugin.url.register", `{"tableAction":"urls"}`, `null`)
}

// Errors have the kind that the reference's callers know.
func TestKinds(t *testing.T) {
	for _, c := range []struct {
		err  error
		kind int
	}{
		{fmt.Errorf("rpc: execute: %w", context.DeadlineExceeded), effect.KindTimeout},
		{fmt.Errorf("x: %w", context.Canceled), effect.KindCancelled},
		{fmt.Errorf("x: %w", rpc.ErrClosed), effect.KindCancelled},
		{fmt.Errorf("x: %w", os.ErrNotExist), effect.KindNotFound},
		{errors.New("x"), effect.KindUnknown},
		{effect.Fail(effect.KindAction, "x"), effect.KindAction},
		{problem.NotFound("package", "x"), effect.KindNotFound},
		{problem.New(504, problem.CodeTimeout, "x"), effect.KindTimeout},
		{problem.New(409, problem.CodeBusy, "x"), effect.KindInvalidRequest},
	} {
		var e *rpc.Error
		require.ErrorAs(t, effect.Translate(c.err), &e)
		require.Equal(t, c.kind, e.Code, "%v", c.err)
	}
	require.NoError(t, effect.Translate(nil))
}

func decode[T any](t *testing.T, text string) T {
	t.Helper()
	var v T
	require.NoError(t, json.Unmarshal([]byte(text), &v))
	return v
}

// A hostile service fills neither the document nor the memory.
func TestLimits(t *testing.T) {
	b := newBench(t)
	b.fails("set-health", `{"id":"web","name":"`+strings.Repeat("x", 100<<10)+`","result":"success"}`, rpc.CodeInvalidParams)
	var last *rpc.Error
	for i := range 300 {
		_, last = b.call("set-health", fmt.Sprintf(`{"id":"c%d","name":"n","result":"success"}`, i))
	}
	require.Equal(t, effect.KindInvalidRequest, last.Code)
	b.ok("set-health", `{"id":"c1","name":"n","result":"waiting"}`, `null`)
	n := 0
	for range strings.SplitSeq(b.doc("/statusInfo/health"), `"name":`) {
		n++
	}
	require.Equal(t, 256+1, n)
}
