package s9pk

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"

	"github.com/selfstead/selfstead/s9pk/merkle"
)

// ErrIncompatible: a package that the device at hand cannot run.
var ErrIncompatible = errors.New("s9pk: package is not for this device")

// Device is what a package's hardware requirements are held against.
type Device struct {
	Arch     string           // x86_64, aarch64, riscv64
	RAM      uint64           // bytes; 0 means not known, and not checked
	Hardware []HardwareDevice // nil means not known, and not checked
}

// HardwareDevice is one processor or display, as lshw describes it.
type HardwareDevice struct {
	Class        string
	Product      *string
	Vendor       *string
	Capabilities []string
	Driver       *string // of a display
}

// Matches says whether d is a device that the filter asks for.
func (f DeviceFilter) Matches(d HardwareDevice) bool {
	found := func(pattern, text *string) bool {
		if pattern == nil {
			return true
		}
		re, err := regexp.Compile(*pattern)
		return err == nil && text != nil && re.MatchString(*text)
	}
	if f.Class != d.Class || !found(f.Product, d.Product) || !found(f.Vendor, d.Vendor) {
		return false
	}
	for _, c := range f.Capabilities {
		if !slices.Contains(d.Capabilities, c) {
			return false
		}
	}
	if f.Class != ClassDisplay || f.Driver == nil {
		return true // a processor has no driver to compare
	}
	return d.Driver != nil && *f.Driver == *d.Driver
}

// Unmet lists, for people, what the device lacks; nil when it has everything.
func (h HardwareRequirements) Unmet(d Device) []string {
	var reasons []string
	if h.Arch != nil && !slices.Contains(h.Arch, d.Arch) {
		reasons = append(reasons, fmt.Sprintf("needs a processor of %s, this is %s", strings.Join(h.Arch, " or "), d.Arch))
	}
	if h.RAM != nil && d.RAM != 0 && d.RAM < *h.RAM {
		reasons = append(reasons, fmt.Sprintf("needs %d bytes of memory, this has %d", *h.RAM, d.RAM))
	}
	if d.Hardware == nil {
		return reasons
	}
	for _, f := range h.Devices {
		if !slices.ContainsFunc(d.Hardware, f.Matches) {
			reasons = append(reasons, "needs a "+f.Class+": "+f.Description)
		}
	}
	return reasons
}

// CompareSpecific orders requirements from the most specific to the most
// general, so that of several packages that fit a device the first is the one
// made for it: more devices, then fewer architectures, then, as the reference
// has it, less memory.
func (h HardwareRequirements) CompareSpecific(o HardwareRequirements) int {
	arches := func(h HardwareRequirements) int {
		if h.Arch == nil {
			return math.MaxUint32
		}
		return len(h.Arch)
	}
	ram := func(h HardwareRequirements) uint64 {
		if h.RAM == nil {
			return 0
		}
		return *h.RAM
	}
	return cmp.Or(cmp.Compare(len(o.Devices), len(h.Devices)), cmp.Compare(arches(h), arches(o)), cmp.Compare(ram(h), ram(o)))
}

// ForDevice returns the tree with all left out that the device does not need:
// other architectures, and files that no part of the manifest asks for. Write it
// with Rewrite; the signature stays valid. The error wraps ErrIncompatible, or
// joins the breaches where the archive is no good package for the device.
func (a *Archive) ForDevice(ctx context.Context, d Device) (*merkle.Directory, error) {
	m, err := a.Manifest(ctx)
	if err != nil {
		return nil, err
	}
	if reasons := m.HardwareRequirements.Unmet(d); len(reasons) > 0 {
		return nil, fmt.Errorf("%w: %s", ErrIncompatible, strings.Join(reasons, "; "))
	}
	return a.ForArch(ctx, d.Arch)
}

// ForArch is ForDevice for an architecture alone; "" keeps all architectures
// that the package is made for.
func (a *Archive) ForArch(ctx context.Context, arch string) (*merkle.Directory, error) {
	m, err := a.Manifest(ctx)
	if err != nil {
		return nil, err
	}
	sel, breaches := Require(a.root, m, arch)
	var errs []error
	for _, b := range breaches {
		if !b.Warning {
			errs = append(errs, b)
		}
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	root := a.root.Clone()
	return root, root.Filter(sel.Keeps)
}
