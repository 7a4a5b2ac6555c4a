package e2e

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// The lab: namespace srv holds the server, namespace lan another host; one
// veth pair between them. srv's default route points at lan.
const (
	serverAddr  = "192.0.2.10"
	serverAddr6 = "2001:db8:77::10"
	lanAddr     = "192.0.2.1"
	lanAddr6    = "2001:db8:77::1"
	apiPort     = "8443"
)

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

// lab is one pair of hosts.
type lab struct {
	srv, lan string // names below /run/netns
}

var labs struct {
	sync.Mutex
	n int
}

func newLab(t testing.TB) *lab {
	t.Helper()
	need(t, os.Geteuid() == 0, "root")
	need(t, os.Getenv("STEAD_BIN") != "" && os.Getenv("STEAD_BASE") != "" && os.Getenv("STEAD_EXAMPLE") != "", "STEAD_BIN, STEAD_BASE, STEAD_EXAMPLE (make test sets them)")
	labs.Lock()
	labs.n++
	tag := fmt.Sprintf("ste%d-%d", os.Getpid(), labs.n)
	labs.Unlock()
	l := &lab{srv: tag + "s", lan: tag + "l"}
	for _, ns := range []string{l.srv, l.lan} {
		ip(t, "netns", "add", ns)
		t.Cleanup(func() { exec.Command("ip", "netns", "del", ns).Run() })
		ip(t, "-n", ns, "link", "set", "lo", "up")
	}
	ip(t, "-n", l.srv, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", l.lan)
	for _, h := range []struct{ ns, a4, a6 string }{{l.srv, serverAddr, serverAddr6}, {l.lan, lanAddr, lanAddr6}} {
		ip(t, "-n", h.ns, "addr", "add", h.a4+"/24", "dev", "eth0")
		ip(t, "-n", h.ns, "addr", "add", h.a6+"/64", "dev", "eth0", "nodad")
		ip(t, "-n", h.ns, "link", "set", "eth0", "up")
	}
	eventually(t, 20*time.Second, "the link has carrier", func() error {
		out, err := exec.Command("ip", "-n", l.srv, "-6", "route").CombinedOutput()
		if err == nil && (strings.Contains(string(out), "linkdown") || !strings.Contains(string(out), "fe80::/64")) {
			err = fmt.Errorf("%s", out)
		}
		return err
	})
	ip(t, "-n", l.srv, "route", "add", "default", "via", lanAddr)
	ip(t, "-n", l.srv, "-6", "route", "add", "default", "via", lanAddr6)
	return l
}

func ip(t testing.TB, args ...string) {
	t.Helper()
	out, err := exec.Command("ip", args...).CombinedOutput()
	require.NoError(t, err, "ip %s: %s", strings.Join(args, " "), out)
}

// within runs fn on a thread inside a network namespace, named or by its path.
func within(ns string, fn func() error) error {
	if !strings.HasPrefix(ns, "/") {
		ns = "/run/netns/" + ns
	}
	res := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		f, err := os.Open(ns)
		if err == nil {
			err = unix.Setns(int(f.Fd()), unix.CLONE_NEWNET)
			f.Close()
		}
		if err == nil {
			err = fn()
		}
		res <- err
	}()
	return <-res
}

// client makes connections from inside ns.
func client(ns string) *http.Client {
	return &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, network, addr string) (c net.Conn, err error) {
			err = within(ns, func() (err error) {
				c, err = (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, network, addr)
				return err
			})
			return c, err
		},
		DisableKeepAlives: true,
	}}
}

// server is one run of the stead program in the lab.
type server struct {
	lab *lab
	dir string
	cmd *exec.Cmd
	log *logBuffer
	end chan struct{} // closed when the program has ended
	err error         // how; read after end
}

type logBuffer struct {
	mu   sync.Mutex
	text strings.Builder
}

func (b *logBuffer) String() string { b.mu.Lock(); defer b.mu.Unlock(); return b.text.String() }

// startServer runs stead serve on dir, with further arguments if wanted, and
// waits until it is ready.
func startServer(t testing.TB, l *lab, dir string, args ...string) *server {
	t.Helper()
	s := &server{lab: l, dir: dir, log: &logBuffer{}, end: make(chan struct{})}
	s.cmd = exec.Command("nsenter", append([]string{"--net=/run/netns/" + l.srv, os.Getenv("STEAD_BIN"), "serve",
		"--dir", dir, "--listen", serverAddr + ":" + apiPort, "--plain", "--base-image", os.Getenv("STEAD_BASE")}, args...)...)
	out, err := s.cmd.StdoutPipe()
	require.NoError(t, err)
	s.cmd.Stderr = s.cmd.Stdout
	require.NoError(t, s.cmd.Start())
	go func() {
		r := bufio.NewReader(out)
		for {
			line, err := r.ReadString('\n')
			s.log.mu.Lock()
			s.log.text.WriteString(line)
			s.log.mu.Unlock()
			if err != nil {
				break
			}
		}
		s.err = s.cmd.Wait()
		close(s.end)
	}()
	t.Cleanup(func() {
		s.signal(syscall.SIGINT)
		if !s.ended(60 * time.Second) {
			s.cmd.Process.Kill()
			t.Errorf("the server did not end after SIGINT:\n%s", s.log)
		}
		if t.Failed() {
			t.Logf("server log:\n%s", s.log)
		}
	})
	c := client(l.srv)
	eventually(t, 60*time.Second, "the server is ready", func() error {
		select {
		case <-s.end:
			t.Fatalf("the server ended: %v\n%s", s.err, s.log)
		default:
		}
		r, err := c.Get(s.url("/readyz"))
		if err != nil {
			return err
		}
		defer r.Body.Close()
		if r.StatusCode != 200 {
			return fmt.Errorf("readyz: %s", r.Status)
		}
		return nil
	})
	return s
}

func (s *server) url(path string) string { return "http://" + serverAddr + ":" + apiPort + path }

func (s *server) signal(sig syscall.Signal) {
	select {
	case <-s.end:
	default:
		s.cmd.Process.Signal(sig)
	}
}

func (s *server) ended(d time.Duration) bool {
	select {
	case <-s.end:
		return true
	case <-time.After(d):
		return false
	}
}

// kill ends the server at once, as a crash would.
func (s *server) kill(t testing.TB) {
	t.Helper()
	s.signal(syscall.SIGKILL)
	require.True(t, s.ended(20*time.Second), "killed")
}

// stop ends it with its services.
func (s *server) stop(t testing.TB) {
	t.Helper()
	s.signal(syscall.SIGINT)
	require.True(t, s.ended(60*time.Second), "stopped")
	require.NoError(t, s.err, "%s", s.log)
}

// inside is the network namespace of the only container that runs for dir, as
// a path.
func inside(t testing.TB, l *lab, dir string) (ns, name string) {
	t.Helper()
	list, err := os.ReadDir(filepath.Join(dir, "containers"))
	require.NoError(t, err)
	var names []string
	for _, d := range list {
		if d.IsDir() {
			names = append(names, d.Name())
		}
	}
	require.Len(t, names, 1, "one container")
	name = names[0]
	var srv unix.Stat_t
	require.NoError(t, unix.Stat("/run/netns/"+l.srv, &srv))
	procs, err := filepath.Glob("/proc/[0-9]*")
	require.NoError(t, err)
	for _, p := range procs {
		groups, err := os.ReadFile(p + "/cgroup")
		if err != nil || !strings.Contains(string(groups), name) {
			continue
		}
		var st unix.Stat_t
		if unix.Stat(p+"/ns/net", &st) == nil && st.Ino != srv.Ino {
			return p + "/ns/net", name
		}
	}
	t.Fatalf("no process of container %s", name)
	return "", ""
}

// cgroupParents are the top cgroups that the processes of a network namespace
// are in, one name for each that is not a cgroup of this test's own.
func cgroupParents(t testing.TB, ns string) (names []string) {
	t.Helper()
	own, err := os.ReadFile("/proc/self/cgroup")
	require.NoError(t, err)
	theirs, err := os.ReadFile(filepath.Join(filepath.Dir(filepath.Dir(ns)), "cgroup"))
	require.NoError(t, err)
	for _, line := range strings.Split(strings.TrimSpace(string(theirs)), "\n") {
		path := strings.SplitN(line, ":", 3)[2]
		top, _, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
		if top != "" && !strings.Contains(string(own), "/"+top) && !slices.Contains(names, top) {
			names = append(names, top)
		}
	}
	require.NotEmpty(t, names, "the container is in a cgroup of its own")
	return names
}

// eventually tries fn until it succeeds, for at most d.
func eventually(t testing.TB, d time.Duration, what string, fn func() error) {
	t.Helper()
	end := time.Now().Add(d)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := fn()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("not within %s: %s: %v", d, what, err)
		}
		<-tick.C
	}
}

// leftovers lists whatever on this machine carries one of the names: mounts,
// links, cgroups, nft elements, loop devices, files below dir.
func leftovers(t testing.TB, l *lab, dir string, names ...string) []string {
	t.Helper()
	var found []string
	look := func(where, text string) {
		for _, line := range strings.Split(text, "\n") {
			for _, n := range names {
				if n != "" && strings.Contains(line, n) {
					found = append(found, where+": "+strings.TrimSpace(line))
				}
			}
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	require.NoError(t, err)
	look("mount", string(mounts))
	for where, args := range map[string][]string{
		"link": {"ip", "-n", l.srv, "link"}, "route": {"ip", "-n", l.srv, "route"},
		"nft": {"nsenter", "--net=/run/netns/" + l.srv, "nft", "list", "ruleset"}, "loop": {"losetup", "-l", "-n", "-O", "NAME,BACK-FILE"},
	} {
		out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
		require.NoError(t, err, "%s: %s", args, out)
		look(where, string(out))
	}
	for _, root := range []string{"/sys/fs/cgroup", dir} {
		filepath.WalkDir(root, func(path string, _ os.DirEntry, err error) error {
			if err == nil {
				look("path", path)
			}
			return nil
		})
	}
	return found
}

// requireEmpty fails when the server's folder still holds anything of packages.
func requireEmpty(t testing.TB, dir, why string) {
	t.Helper()
	for _, folder := range []string{"packages", "uploads", "containers", "volumes", "logs"} {
		list, err := os.ReadDir(filepath.Join(dir, folder))
		if err != nil {
			require.ErrorIs(t, err, os.ErrNotExist)
		}
		for _, d := range list {
			if !strings.HasPrefix(d.Name(), ".") { // the runtime's own file
				t.Errorf("%s: left in %s: %s", why, folder, d.Name())
			}
		}
	}
}

// surroundings is what a server changes in its network namespace.
func surroundings(t testing.TB, l *lab) map[string]string {
	t.Helper()
	out := map[string]string{}
	for what, args := range map[string][]string{
		"links": {"ip", "-n", l.srv, "-o", "link", "show"}, "routes": {"ip", "-n", l.srv, "route"}, "routes6": {"ip", "-n", l.srv, "-6", "route"},
		"rules": {"ip", "-n", l.srv, "rule"}, "nft": {"nsenter", "--net=/run/netns/" + l.srv, "nft", "list", "ruleset"},
	} {
		text, err := exec.Command(args[0], args[1:]...).CombinedOutput()
		require.NoError(t, err, "%s: %s", args, text)
		out[what] = string(text)
	}
	return out
}

func drain(r io.ReadCloser) { io.Copy(io.Discard, r); r.Close() }
