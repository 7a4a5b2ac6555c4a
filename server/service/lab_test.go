package service_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/selfstead/selfstead/lxcrt"
	"github.com/selfstead/selfstead/nat"
	"github.com/selfstead/selfstead/patchdb"
	"github.com/selfstead/selfstead/s9pk"
	"github.com/selfstead/selfstead/s9pk/s9pktest"
	"github.com/selfstead/selfstead/server"
	"github.com/selfstead/selfstead/server/api"
	"github.com/selfstead/selfstead/server/authority"
	"github.com/selfstead/selfstead/server/embedded"
	"github.com/selfstead/selfstead/server/network"
	"github.com/selfstead/selfstead/server/operation"
	"github.com/selfstead/selfstead/server/problem"
	"github.com/selfstead/selfstead/server/service"
	"github.com/selfstead/selfstead/server/state"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// The lab is a network namespace with a server in it, in a process of its own
// that can be killed, and another host beside it.
const (
	serverAddr = "192.0.2.10"
	lanAddr    = "192.0.2.1"
	subnet4    = "10.61.0.0/16"
	subnet6    = "fd61::/64"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv("SERVICE_TEST_DIR"); dir != "" {
		if err := serveLab(dir); err != nil {
			fmt.Fprintln(os.Stderr, "lab:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// serveLab is the process under test: the Manager with real rooms, reached over
// the real routes on a local socket. SIGINT stops it with its services, SIGTERM
// hands over.
func serveLab(dir string) error {
	ctx := context.Background()
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	db, err := patchdb.Open(filepath.Join(dir, "state.db"), patchdb.Options{})
	if err != nil {
		return err
	}
	defer db.Close()
	if _, err := patchdb.Get[string](db, "/private/subnet4"); err != nil {
		doc := state.New()
		doc.Private.Subnet4, doc.Private.Subnet6 = subnet4, subnet6
		if _, err := db.Put(ctx, "", doc); err != nil {
			return err
		}
	}
	layer, err := embedded.Layer(filepath.Join(dir, "guest"), func(string) bool { return true })
	if err != nil {
		return err
	}
	tag := filepath.Base(dir)
	rt, err := lxcrt.New(ctx, lxcrt.Options{
		Dir: filepath.Join(dir, "containers"), CgroupParent: "selfstead-" + tag, LinkPrefix: "sv", Table: "selfstead-" + tag,
		Subnet4: netip.MustParsePrefix(subnet4), Subnet6: netip.MustParsePrefix(subnet6), Logger: log,
	})
	if err != nil {
		return err
	}
	forwards, err := nat.New(nat.Options{Table: "selfstead-nat-" + tag, Logger: log})
	if err != nil {
		return err
	}
	v4, v6 := rt.Gateway()
	netroom, err := network.New(network.Options{
		DB: db, NAT: forwards, Gateway4: v4, Gateway6: v6, Skip: "sv",
		Subnet4: netip.MustParsePrefix(subnet4), Subnet6: netip.MustParsePrefix(subnet6), Logger: log,
	})
	if err != nil {
		return err
	}
	root, err := authority.Open(authority.Options{Dir: filepath.Join(dir, "tls")})
	if err != nil {
		return err
	}
	var issuer service.Issuer = root
	if os.Getenv("SERVICE_RENEW") != "" {
		if issuer, err = newShortLived(filepath.Join(dir, "tls")); err != nil {
			return err
		}
	}
	ops := operation.New(operation.Options{Logger: log, Store: operation.InDocument(db)})
	setUp, _ := time.ParseDuration(os.Getenv("SERVICE_SETUP_LIMIT"))
	drift, _ := time.ParseDuration(os.Getenv("SERVICE_DRIFT_LIMIT"))
	m, err := service.New(service.Deps{
		DB: db, Runtime: rt, Network: netroom, Operations: ops, Dir: dir, Arch: arch(), Issuer: issuer, Logger: log, SetUpLimit: setUp, DriftLimit: drift,
		Layers: func(context.Context) ([]lxcrt.Layer, error) {
			return []lxcrt.Layer{{Path: layer}, {Path: os.Getenv("STEAD_BASE")}}, nil
		},
	})
	if err != nil {
		return err
	}
	var ready atomic.Bool
	srv := server.New(server.Deps{DB: db, Operations: ops, Services: m, Forwards: netroom.Forwards, Inspector: m,
		Shell: func(ctx context.Context, id string, o api.ShellOptions) (server.Terminal, error) {
			t, err := m.Shell(ctx, id, o)
			if err != nil {
				return nil, err
			}
			return t, nil
		},
	}, server.Options{Architecture: arch(), Logger: log, Ready: func() error {
		if !ready.Load() {
			return errors.New("not ready")
		}
		return nil
	}})
	sock := filepath.Join(dir, "stead.sock")
	os.Remove(sock)
	l, err := net.Listen("unix", sock)
	if err != nil {
		return err
	}
	go srv.Serve(l, true)
	go http.Serve(engine(dir, m))
	if err := netroom.Start(ctx); err != nil {
		return err
	}
	if err := m.Start(ctx); err != nil {
		return err
	}
	ready.Store(true)
	sig := make(chan os.Signal, 1)
	signal.Notify(sig, syscall.SIGINT, syscall.SIGTERM)
	stop := <-sig == syscall.SIGINT
	end, cancel := context.WithTimeout(ctx, 90*time.Second)
	defer cancel()
	if err := m.Close(end, stop); err != nil {
		log.Error("close", "err", err)
	}
	srv.Shutdown(end)
	ops.Close(end)
	netroom.Close()
	if stop {
		if err := forwards.CleanUp(end); err != nil {
			log.Error("nat", "err", err)
		}
	}
	forwards.Close()
	return rt.Close()
}

// engine offers what no route does yet, on a socket of its own.
func engine(dir string, m *service.Manager) (net.Listener, http.Handler) {
	sock := filepath.Join(dir, "engine.sock")
	os.Remove(sock)
	l, err := net.Listen("unix", sock)
	if err != nil {
		panic(err)
	}
	mux := http.NewServeMux()
	answer := func(w http.ResponseWriter, v any, err error) {
		if err != nil {
			p := problem.From(err)
			w.WriteHeader(p.Status)
			v = p
		}
		json.NewEncoder(w).Encode(v)
	}
	mux.HandleFunc("POST /backup", func(w http.ResponseWriter, r *http.Request) {
		told := 0
		err := m.Backup(r.Context(), r.FormValue("id"), r.FormValue("dir"), func(json.RawMessage) { told++ })
		answer(w, map[string]int{"told": told}, err)
	})
	mux.HandleFunc("POST /restore", func(w http.ResponseWriter, r *http.Request) {
		op, err := m.Restore(r.Context(), io.NopCloser(r.Body), r.ContentLength, r.URL.Query().Get("dir"))
		io.Copy(io.Discard, r.Body)
		answer(w, op, err)
	})
	return l, mux
}

// engine calls it; a body is decoded into into.
func (l *lab) engine(ctx context.Context, path string, body io.Reader, into any) (int, error) {
	sock := filepath.Join(l.dir, "engine.sock")
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", sock)
	}}}
	req, err := http.NewRequestWithContext(ctx, "POST", "http://engine"+path, body)
	if err != nil {
		return 0, err
	}
	resp, err := c.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	return resp.StatusCode, json.NewDecoder(resp.Body).Decode(into)
}

func arch() string {
	return map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[runtime.GOARCH]
}

// need fails in CI and skips elsewhere when something of the environment lacks.
func need(t testing.TB, ok bool, what string) {
	t.Helper()
	if ok {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatal("missing: " + what)
	}
	t.Skip("missing: " + what)
}

type lab struct {
	t        testing.TB
	dir      string
	srv, lan string // network namespaces
	cmd      *exec.Cmd
	log      *os.File
	http     *http.Client // over the server's socket
}

func newLab(t testing.TB) *lab {
	t.Helper()
	need(t, os.Geteuid() == 0, "root")
	need(t, os.Getenv("STEAD_BASE") != "", "STEAD_BASE, a base image (make test sets it)")
	_, err := os.Stat("../embedded/dist/start-container")
	need(t, err == nil, "server/embedded/dist/start-container (make build)")
	dir, err := os.MkdirTemp("", "svc")
	require.NoError(t, err)
	l := &lab{t: t, dir: dir}
	tag := filepath.Base(dir)
	l.srv, l.lan = tag+"s", tag+"l"
	for _, ns := range []string{l.srv, l.lan} {
		l.ip("netns", "add", ns)
		l.ip("-n", ns, "link", "set", "lo", "up")
	}
	l.ip("-n", l.srv, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", l.lan)
	for ns, addr := range map[string]string{l.srv: serverAddr, l.lan: lanAddr} {
		l.ip("-n", ns, "addr", "add", addr+"/24", "dev", "eth0")
		l.ip("-n", ns, "link", "set", "eth0", "up")
	}
	l.ip("-n", l.srv, "route", "add", "default", "via", lanAddr)
	sock := filepath.Join(dir, "stead.sock")
	l.http = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", sock)
	}, DisableKeepAlives: true}}
	l.log, err = os.Create(filepath.Join(t.TempDir(), "log"))
	require.NoError(t, err)
	t.Cleanup(func() {
		l.stop(syscall.SIGINT)
		for _, pid := range l.inits() { // of a test that failed while no server ran
			syscall.Kill(pid, syscall.SIGKILL)
		}
		text, _ := os.ReadFile(l.log.Name())
		for _, fault := range []string{"DATA RACE", "panic", "level=ERROR"} {
			if strings.Contains(string(text), fault) {
				t.Errorf("the server's log has %q", fault)
			}
		}
		if t.Failed() || os.Getenv("LAB_LOG") != "" {
			t.Logf("server:\n%s", text)
			logs, _ := filepath.Glob(dir + "/logs/*/service.log")
			for _, f := range logs {
				text, _ := os.ReadFile(f)
				t.Logf("%s:\n%s", f, text)
			}
		}
		exec.Command("ip", "netns", "del", l.srv).Run()
		exec.Command("ip", "netns", "del", l.lan).Run()
		os.RemoveAll(dir)
	})
	return l
}

func (l *lab) ip(args ...string) {
	l.t.Helper()
	out, err := exec.Command("ip", args...).CombinedOutput()
	require.NoError(l.t, err, "ip %s: %s", strings.Join(args, " "), out)
}

// start brings the server up and waits until it answers.
func (l *lab) start(env ...string) {
	l.t.Helper()
	l.launch(env...)
	l.await("the server", 20*time.Second, func() bool {
		resp, err := l.http.Get("http://stead/readyz")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == 200
	})
}

// launch begins to bring it up.
func (l *lab) launch(env ...string) {
	l.t.Helper()
	exe, err := os.Executable()
	require.NoError(l.t, err)
	cmd := exec.Command("nsenter", "--net=/run/netns/"+l.srv, exe)
	cmd.Env = append(append(os.Environ(), "SERVICE_TEST_DIR="+l.dir), env...)
	cmd.Stdout, cmd.Stderr = l.log, l.log
	require.NoError(l.t, cmd.Start())
	l.cmd = cmd
}

// stop ends the server with a signal and waits.
func (l *lab) stop(sig syscall.Signal) {
	if l.cmd == nil {
		return
	}
	l.cmd.Process.Signal(sig)
	l.cmd.Wait()
	l.cmd = nil
}

func (l *lab) kill() { l.stop(syscall.SIGKILL) }

// await asks until the answer is yes.
func (l *lab) await(what string, limit time.Duration, ok func() bool) {
	l.t.Helper()
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline.C:
			l.t.Fatalf("%s: not within %s", what, limit)
		}
	}
}

// call makes a request and returns the status; a body is decoded into into.
func (l *lab) call(method, path string, body io.Reader, into any) int {
	l.t.Helper()
	req, err := http.NewRequestWithContext(l.t.Context(), method, "http://stead"+path, body)
	require.NoError(l.t, err)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
		if strings.Contains(path, ":sideload") {
			req.Header.Set("Content-Type", "application/octet-stream")
		}
	}
	resp, err := l.http.Do(req)
	require.NoError(l.t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	require.NoError(l.t, err)
	if into != nil && len(text) > 0 {
		require.NoError(l.t, json.Unmarshal(text, into), "%s %s: %s", method, path, text)
	}
	return resp.StatusCode
}

func (l *lab) json(method, path string, body string, want int, into any) {
	l.t.Helper()
	var raw json.RawMessage
	var r io.Reader
	if body != "" {
		r = strings.NewReader(body)
	}
	got := l.call(method, path, r, &raw)
	require.Equal(l.t, want, got, "%s %s: %s", method, path, raw)
	if into != nil {
		require.NoError(l.t, json.Unmarshal(raw, into))
	}
}

func (l *lab) sideload(file []byte) operation.Operation {
	l.t.Helper()
	var op operation.Operation
	var raw json.RawMessage
	status := l.call("POST", "/v1/packages:sideload", bytes.NewReader(file), &raw)
	require.Equal(l.t, 202, status, "%s", raw)
	require.NoError(l.t, json.Unmarshal(raw, &op))
	return op
}

// refused sideloads what must not be accepted.
func (l *lab) refused(file []byte, status int) *problem.Problem {
	l.t.Helper()
	var p problem.Problem
	require.Equal(l.t, status, l.call("POST", "/v1/packages:sideload", bytes.NewReader(file), &p), "%+v", p)
	return &p
}

func (l *lab) finish(id string) operation.Operation {
	l.t.Helper()
	var op operation.Operation
	l.await("operation "+id, 40*time.Second, func() bool {
		require.Equal(l.t, 200, l.call("GET", "/v1/operations/"+id, nil, &op))
		return op.Done()
	})
	return op
}

func (l *lab) pkg(id string) (p api.Package, there bool) {
	l.t.Helper()
	status := l.call("GET", "/v1/packages/"+id, nil, &p)
	require.Contains(l.t, []int{200, 404}, status)
	return p, status == 200
}

func (l *lab) install(file []byte) {
	l.t.Helper()
	op := l.finish(l.sideload(file).ID)
	require.Equal(l.t, operation.Succeeded, op.Status, "%+v", op.Problem)
}

func (l *lab) reach(id, state string) api.Package {
	l.t.Helper()
	var p api.Package
	l.await(id+" "+state, 40*time.Second, func() bool {
		p, _ = l.pkg(id)
		return p.State == state
	})
	return p
}

func (l *lab) healthy(id string) {
	l.t.Helper()
	l.await(id+" healthy", 30*time.Second, func() bool {
		p, _ := l.pkg(id)
		return p.State == "running" && p.Health["web"].Result == "success"
	})
}

// get fetches from another host.
func (l *lab) get(url string) string {
	l.t.Helper()
	body, err := l.fetch(l.lan, url)
	require.NoError(l.t, err)
	return body
}

func (l *lab) fetch(ns, url string) (string, error) {
	c := &http.Client{Timeout: 8 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(_ context.Context, network, addr string) (net.Conn, error) { return l.dial(ns, network, addr) },
	}}
	resp, err := c.Get(url)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != 200 {
		err = fmt.Errorf("%d: %s", resp.StatusCode, body)
	}
	return string(body), err
}

// dial connects from a network namespace.
func (l *lab) dial(ns, network, addr string) (net.Conn, error) {
	type result struct {
		net.Conn
		error
	}
	got := make(chan result, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends here
		f, err := os.Open("/run/netns/" + ns)
		if err == nil {
			err = unix.Setns(int(f.Fd()), unix.CLONE_NEWNET)
			f.Close()
		}
		var c net.Conn
		if err == nil {
			c, err = net.DialTimeout(network, addr, 3*time.Second)
		}
		got <- result{c, err}
	}()
	r := <-got
	return r.Conn, r.error
}

// options of a test package.
type testPackage struct {
	ID, Version string
	Port        int
	Code        map[string]any // what the bundle's code finds in `test`
	Manifest    func(*s9pk.Manifest)
	Files       map[string][]byte
	Key         s9pk.Signer
}

var built struct {
	sync.Mutex
	image []byte // squashfs
}

// build makes a package with real squashfs images.
func build(t testing.TB, p testPackage) []byte {
	t.Helper()
	if p.Version == "" {
		p.Version = "1.0.0:0"
	}
	built.Lock()
	defer built.Unlock()
	if built.image == nil {
		root := t.TempDir()
		for _, d := range []string{"bin", "etc", "proc", "dev", "sys", "tmp", "data", "mapped", "needed"} {
			require.NoError(t, os.Mkdir(filepath.Join(root, d), 0o755))
		}
		cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", filepath.Join(root, "bin/workload"), "./testdata/workload")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
		require.NoError(t, os.WriteFile(filepath.Join(root, "etc/passwd"), []byte("root:x:0:0:root:/root:/bin/sh\n"), 0o644))
		require.NoError(t, os.WriteFile(filepath.Join(root, "etc/group"), []byte("root:x:0:\n"), 0o644))
		built.image = squash(t, root)
	}
	code := map[string]any{"id": p.ID, "version": p.Version, "port": p.Port}
	for k, v := range p.Code {
		code[k] = v
	}
	text, err := json.Marshal(code)
	require.NoError(t, err)
	bundle, err := os.ReadFile("testdata/bundle.js")
	require.NoError(t, err)
	js := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(js, "index.js"), append([]byte("const test = "+string(text)+"\n"), bundle...), 0o644))
	files := map[string][]byte{
		s9pk.JavascriptPath: squash(t, js), s9pk.AssetsPath: nil,
		s9pk.ImagePath(arch(), "main", ".squashfs"): built.image,
		s9pk.ImagePath(arch(), "main", ".env"):      []byte("PATH=/bin\n"),
	}
	for k, v := range p.Files {
		files[k] = v
	}
	return s9pktest.Build(t, s9pktest.Spec{Key: p.Key, ID: p.ID, Version: p.Version, Arch: []string{arch()}, Files: files, Manifest: p.Manifest})
}

func squash(t testing.TB, dir string) []byte {
	t.Helper()
	file := filepath.Join(t.TempDir(), "image")
	out, err := exec.Command("mksquashfs", dir, file, "-all-root", "-quiet", "-no-progress").CombinedOutput()
	require.NoError(t, err, "%s", out)
	data, err := os.ReadFile(file)
	require.NoError(t, err)
	return data
}
