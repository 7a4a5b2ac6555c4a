package lxcrt

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

const (
	apparmorSwitch = "/sys/module/apparmor/parameters/enabled"
	apparmorFiles  = "/sys/kernel/security/apparmor"
)

// profileName is the runtime's own AppArmor profile.
func profileName(table string) string { return "lxcrt-" + table }

// apparmorProfile is the text of the profile that every container of a runtime
// runs under, PID 1 and what is executed later. It lets a service do what its
// subcontainers are made with: mount, umount and pivot_root anywhere inside,
// every capability that is left, nested user namespaces. It refuses what reaches
// the whole machine even if a fault of the user namespace's would allow it.
// Signals and tracing stay among its own.
func apparmorProfile(name string) string {
	return `profile "` + name + `" flags=(attach_disconnected,mediate_deleted) {
  capability,
  network,
  file,
  unix,
  signal (receive),
  signal (send) peer="` + name + `",
  ptrace peer="` + name + `",

  mount,
  remount,
  umount,
  pivot_root,

  deny mount fstype=debugfs,
  deny mount fstype=tracefs,
  deny mount fstype=securityfs,
  deny mount fstype=devtmpfs,
  deny mount fstype=efivarfs,
  deny mount fstype=configfs,
  deny mount fstype=pstore,

  deny /proc/{acpi,scsi}/** rwklx,
  deny /proc/{kcore,kmem,kmsg,mem,sysrq-trigger,timer_list,sched_debug} rwklx,
  deny /proc/bus/** wklx,
  deny /proc/sys/fs/[^m]** wklx,
  deny /proc/sys/vm/** wklx,
  deny /proc/sys/kernel/{core_*,modprobe,hotplug,poweroff_cmd,sysrq,panic*,perf_*,kexec*,modules_disabled,dmesg_restrict,kptr_restrict,unprivileged_*} wklx,
  deny /proc/sys/kernel/{yama,random,firmware_config,seccomp}/** wklx,

  deny /sys/firmware/** rwklx,
  deny /sys/{block,bus,hypervisor,module,power}/** wklx,
  deny /sys/devices/system/** wklx,
  deny /sys/kernel/** wklx,
  deny /sys/kernel/{debug,security,tracing}/** rwklx,
  deny /sys/fs/{bpf,ext4,pstore,selinux,xfs}/** wklx,
}
`
}

// apparmorLabel is what lxc.apparmor.profile is set to: the runtime's profile,
// "unconfined" where the kernel has AppArmor but no profile can be loaded, and ""
// where it has none.
func apparmorLabel(table string) (label, missing string) {
	if b, err := os.ReadFile(apparmorSwitch); err != nil || strings.TrimSpace(string(b)) != "Y" {
		return "", "the kernel has no AppArmor"
	}
	if _, err := os.Stat(filepath.Join(apparmorFiles, ".load")); err != nil {
		return "unconfined", "securityfs is not mounted"
	}
	if _, err := apparmorParser(); err != nil {
		return "unconfined", "apparmor_parser (package apparmor) is not installed"
	}
	return profileName(table), ""
}

// apparmorParser compiles profiles; a service's PATH may lack its folder.
func apparmorParser() (string, error) {
	if p, err := exec.LookPath("apparmor_parser"); err == nil {
		return p, nil
	}
	return exec.LookPath("/sbin/apparmor_parser")
}

// loadProfile puts the profile into the kernel, in place of an older one of its
// name, under which containers may run.
func loadProfile(name string) error {
	parser, err := apparmorParser()
	if err != nil {
		return err
	}
	cmd := exec.Command(parser, "--replace", "--skip-cache", "--quiet")
	cmd.Stdin = bytes.NewReader([]byte(apparmorProfile(name)))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("AppArmor profile %s: %w: %s", name, err, bytes.TrimSpace(out))
	}
	return nil
}

// removeProfile takes the profile away; what still ran under it would go on
// unconfined.
func removeProfile(name string) error {
	err := os.WriteFile(filepath.Join(apparmorFiles, ".remove"), []byte(name), 0)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("AppArmor profile %s: %w", name, err)
	}
	return nil
}
