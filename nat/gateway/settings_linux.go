package gateway

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// inside runs fn on a thread in the network namespace ns, whose settings
// /proc/sys/net shows. A thread that had to be moved there is thrown away.
func inside(ns *os.File, fn func() error) error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread()
		moved, err := enter(ns)
		if err == nil {
			err = fn()
		}
		if !moved {
			runtime.UnlockOSThread()
		}
		result <- err
	}()
	return <-result
}

func enter(ns *os.File) (moved bool, err error) {
	var want, have unix.Stat_t
	if err := unix.Fstat(int(ns.Fd()), &want); err != nil {
		return false, fmt.Errorf("gateway: network namespace: %w", err)
	}
	if err := unix.Stat("/proc/thread-self/ns/net", &have); err != nil {
		return false, fmt.Errorf("gateway: network namespace: %w", err)
	}
	if want.Ino == have.Ino && want.Dev == have.Dev {
		return false, nil
	}
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
		return false, fmt.Errorf("gateway: network namespace: %w", err)
	}
	return true, nil
}

// Settings are files below /proc/sys, and their values "0", "1" or "2".
//
// Reverse path filters of interfaces: 1 is strict and 2 loose; the larger of an
// interface's and of conf/all is in force. A gateway's must let in what routing
// does not point at.
//
// tcpAccept and reflect: an accepted TCP connection, and what the kernel itself
// answers over IPv6, take the mark of the packet that asked. Where the default
// gateway refuses IPv6, the answer to who came in by another gateway would be
// refused before it came to the chain that marks it. (IPv4 has rules for own
// addresses instead, which serve UDP too; plan.go says why IPv6 has not.)
const (
	tcpAccept = "net/ipv4/tcp_fwmark_accept"
	reflect   = "net/ipv6/fwmark_reflect"
)

func filterOf(name string) string { return "net/ipv4/conf/" + name + "/rp_filter" }

// ourSetting says whether a setting is one that we may have changed.
func ourSetting(s string) bool {
	name, ok := strings.CutPrefix(s, "net/ipv4/conf/")
	if name, ok2 := strings.CutSuffix(name, "/rp_filter"); ok && ok2 {
		return checkName(name) == nil
	}
	return s == tcpAccept || s == reflect
}

// readSetting returns "" where there is none.
func readSetting(s string) (string, error) {
	b, err := os.ReadFile(filepath.Join("/proc/sys", s))
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("gateway: setting %s: %w", s, err)
	}
	return strings.TrimSpace(string(b)), nil
}

func writeSetting(s, value string) error {
	err := os.WriteFile(filepath.Join("/proc/sys", s), []byte(value), 0o644)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("gateway: setting %s: %w", s, err)
	}
	return nil
}

// looser says what to write for an interface whose filter is own, with conf/all
// as it is; "" is nothing.
func looser(own, all string) string {
	want := "0"
	switch all {
	case "1":
		want = "2"
	case "2":
		return "" // loose already, and not to be switched off
	}
	if own == want || own == "2" && want == "2" {
		return ""
	}
	return want
}

// planSettings compares the settings with what these gateways need, notes in was
// how they are, and returns what to write, old values that are no longer in
// the way included. In the namespace.
func planSettings(names map[string]uint32, hasDefault bool, was map[string]string) (map[string]string, error) {
	write, needed := map[string]string{}, map[string]bool{}
	all, err := readSetting(filterOf("all"))
	if err != nil {
		return nil, err
	}
	for name := range names {
		s := filterOf(name)
		needed[s] = true
		own, err := readSetting(s)
		if err != nil {
			return nil, err
		}
		if own == "" {
			continue // not there now
		}
		if v := looser(own, all); v != "" {
			write[s], was[s] = v, own
		}
	}
	for _, s := range []string{tcpAccept, reflect} {
		if !hasDefault {
			break
		}
		needed[s] = true
		own, err := readSetting(s)
		if err != nil {
			return nil, err
		}
		if own == "0" {
			write[s], was[s] = "1", own
		}
	}
	for s, value := range was {
		if !needed[s] {
			write[s] = value
		}
	}
	return write, nil
}

// syncSettings makes settings what the gateways need, and our marks with them,
// which keep what was: it is noted before a setting is changed.
func (c *Controller) syncSettings(slots map[string]uint32) error {
	return inside(c.ns, func() error {
		write, err := planSettings(slots, c.cfg.Default != "", c.was)
		if err != nil {
			return err
		}
		if err := c.marks.apply(makeMarks(c.o.Mask, slots, c.was)); err != nil {
			return err
		}
		var errs []error
		back := false
		for s, value := range write {
			if err := writeSetting(s, value); err != nil {
				errs = append(errs, err)
				continue
			}
			if c.was[s] == value {
				delete(c.was, s)
				back = true
			}
		}
		if back {
			errs = append(errs, c.marks.apply(makeMarks(c.o.Mask, slots, c.was)))
		}
		return errors.Join(errs...)
	})
}
