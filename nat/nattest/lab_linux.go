package nattest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Lab is a set of network namespaces that end with the test.
type Lab struct {
	tb testing.TB
}

// Require skips the test when it cannot make namespaces or lacks a program;
// where the environment says CI=true that is a failure.
func Require(tb testing.TB, programs ...string) {
	tb.Helper()
	missing := ""
	if os.Geteuid() != 0 {
		missing = "root"
	}
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			missing = "the program " + p
		}
	}
	switch {
	case missing == "":
	case os.Getenv("CI") == "true":
		tb.Fatalf("this test needs %s", missing)
	default:
		tb.Skipf("this test needs %s", missing)
	}
}

// NewLab starts an empty lab; it needs root and the ip program.
func NewLab(tb testing.TB) *Lab {
	tb.Helper()
	Require(tb, "ip")
	return &Lab{tb}
}

// Space is a network namespace.
type Space struct {
	Name string
	tb   testing.TB
	ns   *os.File
}

// Space makes a namespace with its loopback up, no reverse path filter and no
// duplicate address detection, so that addresses work at once.
func (l *Lab) Space(name string) *Space {
	l.tb.Helper()
	s := &Space{Name: name, tb: l.tb}
	err := onThread(func() (err error) {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		s.ns, err = os.Open("/proc/thread-self/ns/net")
		return err
	})
	if err != nil {
		l.tb.Fatalf("make namespace %s: %v", name, err)
	}
	l.tb.Cleanup(func() { s.ns.Close() })
	for _, scope := range []string{"all", "default"} {
		s.Sysctl("net.ipv4.conf."+scope+".rp_filter", "0")
		s.Sysctl("net.ipv6.conf."+scope+".accept_dad", "0")
		s.Sysctl("net.ipv6.conf."+scope+".accept_ra", "0")
	}
	s.IP("link set lo up")
	return s
}

// Router makes a namespace that forwards IPv4 and IPv6.
func (l *Lab) Router(name string) *Space {
	l.tb.Helper()
	s := l.Space(name)
	s.Sysctl("net.ipv4.ip_forward", "1")
	s.Sysctl("net.ipv6.conf.all.forwarding", "1")
	return s
}

// onThread runs fn on a thread that is thrown away afterwards.
func onThread(fn func() error) error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread()
		result <- fn()
	}()
	return <-result
}

// Try runs fn on a thread inside the namespace. Sockets that fn makes stay
// there; goroutines that it starts do not.
func (s *Space) Try(fn func() error) error {
	return onThread(func() error {
		if err := unix.Setns(int(s.ns.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter namespace %s: %w", s.Name, err)
		}
		return fn()
	})
}

// Do is Try that fails the test on error.
func (s *Space) Do(fn func() error) {
	s.tb.Helper()
	if err := s.Try(fn); err != nil {
		s.tb.Fatalf("%s: %v", s.Name, err)
	}
}

// Output runs a program inside the namespace and returns what it printed.
func (s *Space) Output(name string, args ...string) (string, error) {
	var out []byte
	err := s.Try(func() (err error) {
		out, err = exec.Command(name, args...).CombinedOutput()
		return err
	})
	return string(out), err
}

// Run is Output that fails the test on error.
func (s *Space) Run(name string, args ...string) string {
	s.tb.Helper()
	out, err := s.Output(name, args...)
	if err != nil {
		s.tb.Fatalf("%s: %s %s: %v\n%s", s.Name, name, strings.Join(args, " "), err, out)
	}
	return out
}

// IP runs commands of the ip program, one a line. IPv6 addresses are usable at
// once: duplicate address detection, which waits for the link, is left out.
func (s *Space) IP(lines string) {
	s.tb.Helper()
	list := strings.Split(lines, "\n")
	for i, l := range list {
		if w := strings.Fields(l); len(w) > 2 && w[0] == "addr" && w[1] == "add" && strings.Contains(w[2], ":") {
			list[i] += " nodad"
		}
	}
	s.input(strings.Join(list, "\n")+"\n", "ip", "-batch", "-")
}

// Nft loads a script with the nft program.
func (s *Space) Nft(script string) {
	s.tb.Helper()
	s.input(script, "nft", "-f", "-")
}

// Ruleset lists all tables as the nft program shows them.
func (s *Space) Ruleset() string {
	s.tb.Helper()
	return s.Run("nft", "list", "ruleset")
}

func (s *Space) input(text, name string, args ...string) {
	s.tb.Helper()
	var out []byte
	err := s.Try(func() (err error) {
		cmd := exec.Command(name, args...)
		cmd.Stdin = strings.NewReader(text)
		out, err = cmd.CombinedOutput()
		return err
	})
	if err != nil {
		s.tb.Fatalf("%s: %s: %v\n%s\n%s", s.Name, name, err, text, out)
	}
}

// Sysctl sets a key such as "net.ipv4.ip_forward".
func (s *Space) Sysctl(key, value string) {
	s.tb.Helper()
	s.Do(func() error {
		return os.WriteFile(filepath.Join("/proc/sys", strings.ReplaceAll(key, ".", "/")), []byte(value), 0)
	})
}

// ReadSysctl reads a key; interface names may hold no dots.
func (s *Space) ReadSysctl(key string) string {
	s.tb.Helper()
	var b []byte
	s.Do(func() (err error) {
		b, err = os.ReadFile(filepath.Join("/proc/sys", strings.ReplaceAll(key, ".", "/")))
		return err
	})
	return strings.TrimSpace(string(b))
}

// BridgeRules switches bridge netfilter, which shows bridged frames to the IP rules.
func (s *Space) BridgeRules(on bool) {
	s.tb.Helper()
	v := "0"
	if on {
		v = "1"
	}
	s.Sysctl("net.bridge.bridge-nf-call-iptables", v)
	s.Sysctl("net.bridge.bridge-nf-call-ip6tables", v)
}

// Join connects two namespaces with a veth pair, both ends up.
func (l *Lab) Join(a *Space, aName string, b *Space, bName string) {
	l.tb.Helper()
	a.IP(fmt.Sprintf("link add %s type veth peer name %s netns /proc/%d/fd/%d", aName, bName, os.Getpid(), b.ns.Fd()))
	a.IP("link set " + aName + " up")
	b.IP("link set " + bName + " up")
}
