package service_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/selfstead/selfstead/s9pk"
	"github.com/selfstead/selfstead/server/service/effect"
	"github.com/selfstead/selfstead/server/service/rpc"
	"github.com/stretchr/testify/require"
)

// What the reference gets wrong here, and where each is proven to be right:
//
//	a dependency's volume goes to whoever asks        TestMounts "undeclared"
//	of a package that is not installed                TestMounts "undeclared"
//	".." in a subpath leads out of the volume         TestMounts "paths"
//	links of the other package lead out of it         TestMounts "paths", TestOpenBelowStaysInside
//	read-only mounts can be written                   TestMounts "read-only"
//	mounting to read creates what is missing          TestMounts "read-only"
//	volumes' ids are a container's own on disk        TestMounts "ids"
//	own volumes cannot be mounted with other ids      TestMounts "ids", TestLife (/mapped)
//	binds with the host's privileges over the socket  TestMounts "nothing but effects"
//	event ids are lost, so forms cannot be run        TestMounts "event ids", effect.TestActions
//	actions without input are refused                 TestNothingRunsTwice (relay), effect.TestActions
//	two calls for one answer run twice                TestNothingRunsTwice, rpc.TestServerRunsEachCallOnce
//	a change between reading and watching is lost     TestTasksAndDependencies (followed), effect.TestControl
//	the host restarts what it does not adopt          TestAdoption, TestAdoptionOfAnotherProtocol
//	an answer after the last request is cut off       rpc.TestServerFraming (half-closed)
//	characters split over chunks are spoilt           rpc.TestServerPieces, node: "characters split over chunks"
//	a socket that is cut holds what it was given      rpc.TestServerCuts
//	siblings reach each other's forwards              TestAccessBetweenPackages
//	each service may take the whole machine           TestLimitsOfARunningService, TestDefaultLimits
//	one package's flood is everybody's                TestHostilePackage, TestFloods, rpc.TestServerBatch
//
// TestMounts asks over the socket what a package could ask.
func TestMounts(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.start()
	l.install(build(t, testPackage{ID: "base", Port: 18081}))
	l.install(build(t, testPackage{ID: "user", Port: 18082, Code: map[string]any{"needs": "base"},
		Manifest: func(m *s9pk.Manifest) {
			m.Dependencies["base"] = s9pk.Dependency{}
			m.Dependencies["gone"] = s9pk.Dependency{}
		}}))
	l.install(build(t, testPackage{ID: "sibling", Port: 18083, Code: map[string]any{"claims": "base"}}))
	for _, id := range []string{"base", "user", "sibling"} {
		l.healthy(id)
	}
	volume := l.dir + "/volumes/base/data/main/"
	inside := func(id, path string) string { return "/proc/" + strconv.Itoa(l.pid(id)) + "/root" + path }
	mount := func(from, location, pkg, vol, subpath string, readonly bool) (json.RawMessage, *rpc.Error) {
		params := map[string]any{"location": location, "target": map[string]any{
			"packageId": pkg, "volumeId": vol, "subpath": subpath, "readonly": readonly, "idmap": []any{}, "type": "pointer", "filetype": "directory"}}
		if subpath == "" {
			params["target"].(map[string]any)["subpath"] = nil
		}
		return l.effect(from, "mount", params)
	}
	fails := func(t *testing.T, kind int, from, pkg, vol, subpath string, readonly bool) {
		t.Helper()
		_, e := mount(from, "/mnt/refused", pkg, vol, subpath, readonly)
		require.NotNil(t, e, "%s %s/%s %q", from, pkg, vol, subpath)
		require.Equal(t, kind, e.Code, "%s %s/%s %q: %s", from, pkg, vol, subpath, e.Details())
		entries, _ := os.ReadDir(inside(from, "/mnt/refused"))
		require.Empty(t, entries)
	}
	good := func(t *testing.T, location, subpath string, readonly bool) {
		t.Helper()
		result, e := mount("user", location, "base", "main", subpath, readonly)
		require.Nil(t, e, "%v", e)
		require.Equal(t, "null", string(result))
	}

	t.Run("undeclared", func(t *testing.T) {
		fails(t, effect.KindInvalidRequest, "sibling", "base", "main", "", true)
		_, e := l.effect("sibling", "set-dependencies", map[string]any{"dependencies": []any{map[string]any{"kind": "exists", "id": "base", "versionRange": "*"}}})
		require.Nil(t, e)
		fails(t, effect.KindInvalidRequest, "sibling", "base", "main", "", true)
		fails(t, effect.KindInvalidRequest, "base", "user", "main", "", true)
		fails(t, effect.KindNotFound, "user", "gone", "main", "", true)
		fails(t, effect.KindNotFound, "user", "base", "other", "", true)
	})
	t.Run("paths", func(t *testing.T) {
		require.NoError(t, os.WriteFile(l.dir+"/volumes/base/data/outside", []byte("secret"), 0o644))
		require.NoError(t, os.MkdirAll(volume+"sub/dir", 0o755))
		for name, to := range map[string]string{"up": "..", "down": "../../../..", "root": "/", "outside": "../outside", "etc": "/etc"} {
			require.NoError(t, os.Symlink(to, volume+name))
		}
		for _, p := range []string{"..", "../outside", "sub/../../outside", "sub/..", "/.."} {
			fails(t, effect.KindInvalidRequest, "user", "base", "main", p, true)
		}
		for _, p := range []string{"outside", "etc", "root/etc", "up/outside", "down/etc"} {
			fails(t, effect.KindFilesystem, "user", "base", "main", p, true)
		}
		for _, p := range []string{"root", "up", "down/sub"} { // as if the volume were all there is
			good(t, "/mnt/links", p, true)
			_, err := os.Stat(inside("user", "/mnt/links/outside"))
			require.ErrorIs(t, err, os.ErrNotExist, p)
		}
		fails(t, effect.KindInvalidID, "user", "base", "..", "", true)
		fails(t, effect.KindInvalidID, "user", "base", "main/../..", "", true)
		fails(t, effect.KindNotFound, "user", "base", "BACKUP", "", true)
		// A place is inside the container, whatever it is called.
		before, _ := os.ReadFile("/proc/self/mountinfo")
		require.NoError(t, os.Symlink("/../../../../mnt", inside("user", "/out")))
		good(t, "/out/via-link", "sub", true)
		good(t, "/../../../../mnt/via-dots", "sub", true)
		for _, at := range []string{"via-link", "via-dots"} {
			_, err := os.Stat(inside("user", "/mnt/"+at+"/dir"))
			require.NoError(t, err)
			_, err = os.Stat("/mnt/" + at)
			require.ErrorIs(t, err, os.ErrNotExist)
		}
		after, _ := os.ReadFile("/proc/self/mountinfo")
		require.Equal(t, strings.Count(string(before), "via-"), strings.Count(string(after), "via-"), "not in this machine's own namespace")
	})
	t.Run("read-only", func(t *testing.T) {
		good(t, "/mnt/read", "", true)
		for _, path := range []string{"/mnt/read/new", "/mnt/read/sub/new", "/mnt/read/inits"} {
			require.ErrorIs(t, os.WriteFile(inside("user", path), nil, 0o644), syscall.EROFS, path)
		}
		good(t, "/mnt/write", "", false)
		f, err := os.OpenFile(inside("user", "/mnt/write/inits"), os.O_WRONLY|os.O_APPEND, 0)
		require.NoError(t, err)
		_, err = f.WriteString("written\n")
		require.NoError(t, errors.Join(err, f.Close()))
		text, err := os.ReadFile(volume + "inits")
		require.NoError(t, err)
		require.Equal(t, "install\nwritten\n", string(text))
		fails(t, effect.KindFilesystem, "user", "base", "main", "missing", true)
		require.NoDirExists(t, volume+"missing")
		good(t, "/mnt/made", "made/below", false)
		require.DirExists(t, volume+"made/below")
	})
	t.Run("ids", func(t *testing.T) {
		// On disk are the ids that a container sees, whose range is another for
		// each package.
		owner := func(path string) uint32 {
			info, err := os.Lstat(path)
			require.NoError(t, err, path)
			return info.Sys().(*syscall.Stat_t).Uid
		}
		require.Zero(t, owner(volume+"inits"), "written by the root of its container")
		root := func(id string) uint32 { return owner(inside(id, "/etc/hostname")) }
		require.NotEqual(t, root("base"), root("user"))
		require.GreaterOrEqual(t, root("user"), uint32(1<<16))
		require.Equal(t, root("base"), owner(inside("base", "/media/startos/volumes/main/inits")))
		require.Equal(t, root("user"), owner(inside("user", "/mnt/read/inits")), "root here, too")
		_, e := l.effect("user", "mount", map[string]any{"location": "/mnt/mapped", "target": map[string]any{
			"packageId": "base", "volumeId": "main", "subpath": nil, "readonly": true,
			"idmap": []any{map[string]any{"fromId": 0, "toId": 1000, "range": 1}}}})
		require.Nil(t, e)
		require.Equal(t, root("user")+1000, owner(inside("user", "/mnt/mapped/inits")))
	})
	t.Run("nothing but effects", func(t *testing.T) {
		own := func(source string) *rpc.Error {
			_, e := l.effect("user", "selfstead.bind-mount", map[string]any{"source": source, "target": "/mnt/own", "recursive": true,
				"idmap": []any{map[string]any{"fromId": 0, "toId": 1000, "range": 1}}})
			return e
		}
		require.Nil(t, own("/media/startos/volumes/main"))
		for _, source := range []string{
			"/", "/etc", "/media/startos/volumes", "/media/startos/volumes/other", "/media/startos/volumes/main/../../..", "/media/startos/assets",
			"/mnt/write", "/media/startos/rpc", "/media/startos/volumes/../../../etc", l.dir,
		} {
			e := own(source)
			require.NotNil(t, e, source)
			require.Equal(t, effect.KindInvalidRequest, e.Code, source)
		}
		require.NoError(t, os.Symlink("/etc", l.dir+"/volumes/user/data/main/etc"))
		require.NoError(t, os.Symlink("../../../base/data/main", l.dir+"/volumes/user/data/main/theirs"))
		for _, source := range []string{"etc/passwd", "theirs"} {
			if e := own("/media/startos/volumes/main/" + source); e == nil { // made anew below the volume, with the link as if it were the root
				_, err := os.Stat(inside("user", "/mnt/own/inits"))
				require.ErrorIs(t, err, os.ErrNotExist, source)
			}
		}
		for _, method := range []string{
			"bind-mount", "subcontainer.launch", "subcontainer.launch-init", "subcontainer.exec", "subcontainer.exec-command", "pipe-wrap", "unshare-userns",
			"eval", "lxc.attach", "package.install", "db.dump", "server.shutdown", "",
		} {
			_, e := l.effect("user", method, map[string]any{"source": "/etc", "target": "/mnt/etc"})
			require.NotNil(t, e, method)
			require.Equal(t, rpc.CodeMethodNotFound, e.Code, method)
		}
	})
	t.Run("event ids", func(t *testing.T) {
		// A form that a package asks for and fills in under its event, and one that
		// it runs without having asked.
		form, e := l.effect("base", "action.get-input", map[string]any{"actionId": "set-name", "eventId": "EVENT"})
		require.Nil(t, e)
		require.Contains(t, string(form), `"eventId":"EVENT"`)
		for _, event := range []any{"EVENT", nil} {
			params := map[string]any{"actionId": "set-name", "input": map[string]any{"name": "gamma"}}
			if event != nil {
				params["eventId"] = event
			}
			result, e := l.effect("base", "action.run", params)
			require.Nil(t, e)
			require.Contains(t, string(result), "it is gamma now")
		}
		_, e = l.effect("user", "action.run", map[string]any{"packageId": "base", "actionId": "set-name", "input": map[string]any{"name": "delta"}})
		require.Equal(t, effect.KindInvalidRequest, e.Code, "that is for its user alone")
	})
}

// container is the folder of a package's container, of which it has one.
func (l *lab) container(id string) string {
	l.t.Helper()
	specs, err := filepath.Glob(l.dir + "/containers/*/spec.json")
	require.NoError(l.t, err)
	for _, file := range specs {
		if text, err := os.ReadFile(file); err == nil && strings.Contains(string(text), l.dir+"/logs/"+id+`"`) {
			return filepath.Dir(file)
		}
	}
	l.t.Fatalf("no container of %s", id)
	return ""
}

// pid is PID 1 of a package's container.
func (l *lab) pid(id string) int {
	l.t.Helper()
	guid := filepath.Base(l.container(id))
	for _, pid := range l.inits() {
		if name, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/root/etc/hostname"); err == nil && strings.TrimSpace(string(name)) == guid {
			return pid
		}
	}
	l.t.Fatalf("no process of %s", id)
	return 0
}

// effect asks over a package's own socket, as what runs inside would.
func (l *lab) effect(id, method string, params any) (json.RawMessage, *rpc.Error) {
	l.t.Helper()
	text, err := json.Marshal(map[string]any{"id": 1, "method": method, "params": params})
	require.NoError(l.t, err)
	return l.request(id, string(text))
}

// request sends a whole line over a package's own socket.
func (l *lab) request(id, text string) (json.RawMessage, *rpc.Error) {
	l.t.Helper()
	c := l.hostSocket(id)
	defer c.Close()
	_, err := c.Write([]byte(text + "\n"))
	require.NoError(l.t, err)
	require.NoError(l.t, c.(*net.UnixConn).CloseWrite())
	line, err := bufio.NewReader(c).ReadBytes('\n')
	require.NoError(l.t, err, "%s of %s", text, id)
	var answer struct {
		Result json.RawMessage
		Error  *rpc.Error
	}
	require.NoError(l.t, json.Unmarshal(line, &answer), "%s", line)
	return answer.Result, answer.Error
}

func (l *lab) hostSocket(id string) net.Conn {
	l.t.Helper()
	// The path is longer than an address may be.
	dir, err := os.Open(l.container(id) + "/rpc")
	require.NoError(l.t, err)
	defer dir.Close()
	c, err := net.Dial("unix", "/proc/self/fd/"+strconv.Itoa(int(dir.Fd()))+"/host.sock")
	require.NoError(l.t, err)
	return c
}
