package service

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/selfstead/selfstead/lxcrt"
	"github.com/selfstead/selfstead/patchdb"
	"github.com/selfstead/selfstead/s9pk"
	"github.com/selfstead/selfstead/server/state"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestWatchersFireOnce(t *testing.T) {
	w := newWatchers[string]()
	w.add("a", 1, "/p/x")
	w.add("a", 2, "/p/y")
	w.add("b", 1, "/p")
	w.add("b", 2, "/px")
	require.Empty(t, w.take([]patchdb.Pointer{"/q", "/p/xx"})["a"])
	w.add("b", 1, "/p") // the change below /p fired it
	require.Equal(t, map[string][]int64{"a": {1}, "b": {1}}, compact(w.take([]patchdb.Pointer{"/p/x/deep"})))
	require.Equal(t, map[string][]int64{}, compact(w.take([]patchdb.Pointer{"/p/x/deep"})))
	require.Equal(t, map[string][]int64{"a": {2}}, compact(w.take([]patchdb.Pointer{"/p"})))
	w.forget("b", []int64{2}, nil)
	w.add("b", 3, "/z")
	w.add("b", 4, "/z")
	w.forget("b", nil, []int64{4})
	require.Equal(t, map[string][]int64{"b": {4}}, compact(w.take(nil)))
	w.add("b", 5, "/z")
	w.drop("b")
	require.Empty(t, compact(w.take(nil)))
}

// A runtime that does not take its callbacks fills no more than its own queue.
func TestNotesAreBounded(t *testing.T) {
	run := &instance{note: make(chan struct{}, 1), log: slog.New(slog.DiscardHandler)}
	for i := range int64(4 * maxCallbacks) {
		run.notify([]int64{i, i})
	}
	require.Len(t, run.notes, maxCallbacks)
}

// What a service puts in the place of a missing source is not opened: a pipe
// would hold the server for ever.
func TestMakeBelowOpensNothing(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, unix.Mkfifo(filepath.Join(dir, "pipe"), 0o600))
	done := make(chan error, 1)
	go func() { done <- makeBelow(dir, "pipe", makeFile) }()
	select {
	case err := <-done:
		require.NoError(t, err)
	case <-time.After(5 * time.Second):
		t.Fatal("it waits for a reader of the pipe")
	}
	require.NoError(t, makeBelow(dir, "a/b", makeFile))
	info, err := os.Stat(filepath.Join(dir, "a/b"))
	require.NoError(t, err)
	require.True(t, info.Mode().IsRegular())
}

func compact(m map[string][]int64) map[string][]int64 {
	for k, v := range m {
		if len(v) == 0 {
			delete(m, k)
		}
	}
	return m
}

func TestAllot(t *testing.T) {
	db, err := patchdb.Open(filepath.Join(t.TempDir(), "db"), patchdb.Options{})
	require.NoError(t, err)
	defer db.Close()
	doc := state.New()
	doc.Private.Subnet4, doc.Private.Subnet6 = "10.9.0.0/29", "fd09::/64"
	_, err = db.Put(t.Context(), "", doc)
	require.NoError(t, err)
	take := func(id string) (keep state.ServiceKeep, err error) {
		_, err = db.Update(t.Context(), func(tx *patchdb.Tx) error {
			if keep, err = allot(tx); err != nil {
				return err
			}
			return tx.Put(keepPointer(id), keep)
		})
		return keep, err
	}
	seen := map[state.ServiceKeep]bool{}
	for _, id := range []string{"a", "b", "c", "d", "e"} {
		keep, err := take(id)
		require.NoError(t, err)
		require.False(t, seen[keep])
		seen[keep] = true
	}
	require.True(t, seen[state.ServiceKeep{IDBase: 1 << 20, Addr4: "10.9.0.2", Addr6: "fd09::2"}])
	require.True(t, seen[state.ServiceKeep{IDBase: 1<<20 + 4<<16, Addr4: "10.9.0.6", Addr6: "fd09::6"}])
	_, err = take("f")
	require.ErrorContains(t, err, "no address is left")
	_, err = db.Update(t.Context(), func(tx *patchdb.Tx) error { return tx.Remove(keepPointer("b")) })
	require.NoError(t, err)
	keep, err := take("f")
	require.NoError(t, err)
	require.Equal(t, state.ServiceKeep{IDBase: 1<<20 + 1<<16, Addr4: "10.9.0.3", Addr6: "fd09::3"}, keep)
}

func TestDataVersion(t *testing.T) {
	l := layout(t.TempDir())
	v, err := l.dataVersion("p")
	require.NoError(t, err)
	require.Nil(t, v)
	want := ">=1.0.0:0 && <2.0.0:0"
	require.NoError(t, l.setDataVersion("p", &want))
	v, err = l.dataVersion("p")
	require.NoError(t, err)
	require.Equal(t, want, *v)
	require.NoError(t, l.setDataVersion("p", nil))
	require.NoError(t, l.setDataVersion("p", nil))
	v, err = l.dataVersion("p")
	require.NoError(t, err)
	require.Nil(t, v)
	// A link in its place leads nowhere out.
	outside := filepath.Join(t.TempDir(), "secret")
	require.NoError(t, os.WriteFile(outside, []byte("x"), 0o600))
	require.NoError(t, os.Symlink(outside, filepath.Join(l.data("p"), ".version")))
	_, err = l.dataVersion("p")
	require.Error(t, err)
}

func TestEdges(t *testing.T) {
	got := edges(map[string]peer{
		"a":    {container: "A"},
		"b":    {container: "B", ports: []uint16{80, 81}, clients: []string{"a", "b", "a", "gone", "down"}},
		"c":    {container: "C", ports: []uint16{90}},
		"down": {ports: []uint16{1}, clients: []string{"a"}},
	})
	require.Equal(t, []lxcrt.Edge{
		{From: "A", To: "B", Protocol: "tcp", Port: 80}, {From: "A", To: "B", Protocol: "udp", Port: 80},
		{From: "A", To: "B", Protocol: "tcp", Port: 81}, {From: "A", To: "B", Protocol: "udp", Port: 81},
	}, got)
	for p, want := range map[patchdb.Pointer]bool{
		"": true, "/public/packageData": true, "/public/packageData/a": true, "/public/packageData/a/currentDependencies/b": false, "/public/packageData/a/grants/b": true,
		"/public/packageData/a/hosts/h/bindings/80": true, "/public/packageData/a/hosts/h/bindings/80/enabled": true,
		"/public/packageData/a/hosts/h/bindings/80/addresses/available/0": false, "/public/packageData/a/statusInfo/health/web": false,
		"/private/services/a/container": true, "/private/services/a/spec": false, "/public/serverInfo/network/outside": false,
	} {
		require.Equal(t, want, concernsAccess(p), p)
	}
}

func TestOpenBelowStaysInside(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "volume/sub"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "secret"), nil, 0o600))
	require.NoError(t, os.Symlink("/", filepath.Join(dir, "volume/root")))
	require.NoError(t, os.Symlink("../../secret", filepath.Join(dir, "volume/up")))
	f, err := openBelow(filepath.Join(dir, "volume"), "root/sub")
	require.NoError(t, err)
	f.Close()
	_, err = openBelow(filepath.Join(dir, "volume"), "up")
	require.ErrorIs(t, err, os.ErrNotExist)
	_, err = openBelow(filepath.Join(dir, "volume"), "root/etc")
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestUnlinkedTargets(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "mnt/data"), 0o755))
	for name, to := range map[string]string{"data": "/mnt/data", "up": "../../../mnt", "loop": "loop", "mnt/rel": "data"} {
		require.NoError(t, os.Symlink(to, filepath.Join(dir, name)))
	}
	root, err := os.Open(dir)
	require.NoError(t, err)
	defer root.Close()
	for in, want := range map[string]string{
		"data": "/mnt/data", "data/x/y": "/mnt/data/x/y", "up/data": "/mnt/data", "new/path": "/new/path", "mnt/rel/z": "/mnt/data/z", "a/../../mnt": "/mnt",
	} {
		got, err := unlinked(int(root.Fd()), in)
		require.NoError(t, err)
		require.Equal(t, want, got, in)
	}
	_, err = unlinked(int(root.Fd()), "loop")
	require.Error(t, err)
}

func TestUpcast(t *testing.T) {
	require.JSONEq(t, `{"version":"1","title":"Action Complete","message":"m","result":{"type":"single","value":"v","copyable":true,"qr":false,"masked":false}}`,
		string(upcast([]byte(`{"version":"0","message":"m","value":"v","copyable":true,"qr":false}`))))
	require.JSONEq(t, `{"version":"1","title":"Action Complete","message":"m","result":null}`, string(upcast([]byte(`{"version":"0","message":"m","value":null,"copyable":true,"qr":false}`))))
	require.Equal(t, `null`, string(upcast([]byte(`null`))))
	require.Equal(t, `{"version":"1"}`, string(upcast([]byte(`{"version":"1"}`))))
}

func TestDefaultLimits(t *testing.T) {
	m := &s9pk.Manifest{}
	require.Equal(t, lxcrt.Limits{Memory: 7 << 30, Swap: -1, CPUWeight: 100, PIDs: 1 << 14}, defaultLimits(8<<30, m))
	require.Equal(t, int64(512<<20), defaultLimits(1<<30, m).Memory, "a small machine")
	require.Zero(t, defaultLimits(0, m).Memory)
	need := uint64(7800 << 20)
	m.HardwareRequirements.RAM = &need
	require.Equal(t, int64(need), defaultLimits(8<<30, m).Memory, "what the manifest asks for")
	need = 64 << 30
	require.Equal(t, int64(8<<30), defaultLimits(8<<30, m).Memory, "and there is")
	memory, cpus, weight, pids := int64(1), 0.5, 7, int64(9)
	set := &state.Limits{Memory: &memory, CPUs: &cpus, CPUWeight: &weight, PIDs: &pids}
	require.Equal(t, lxcrt.Limits{Memory: 1, Swap: -1, CPUQuota: 0.5, CPUWeight: 7, PIDs: 9}, owned(defaultLimits(8<<30, m), set))
	require.Equal(t, defaultLimits(8<<30, m), owned(defaultLimits(8<<30, m), nil))
}
