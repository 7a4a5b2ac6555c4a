package service

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/selfstead/selfstead/s9pk"
	"github.com/selfstead/selfstead/s9pk/exver"
	"github.com/selfstead/selfstead/server/problem"
)

// oldestOS is the first release of StartOS whose packages have our form.
var oldestOS = exver.Version{Numbers: []uint64{0, 3, 0}}

// checkRequirements refuses a package that asks for another system or more
// machine than this. An installed package is not asked again: memory that was
// taken out of the machine does not make it go.
func checkRequirements(m *s9pk.Manifest, ram uint64, devices func() []device) error {
	refuse := func(format string, args ...any) error {
		return problem.Newf(422, problem.CodeIncompatible, "package "+m.ID+" "+format, args...).At(s9pk.ManifestPath, -1)
	}
	ours, err := exver.ParseVersion(s9pk.OSVersion)
	if err != nil {
		return err
	}
	switch {
	case m.OSVersion.Compare(ours) > 0:
		return refuse("is made for release %s of the system, this server follows %s", m.OSVersion, ours)
	case m.OSVersion.Compare(oldestOS) < 0:
		return refuse("is made for release %s of the system, the oldest that runs here is %s", m.OSVersion, oldestOS)
	}
	if need := m.HardwareRequirements.RAM; need != nil && ram > 0 && *need > ram {
		return refuse("needs %d bytes of memory, this server has %d", *need, ram)
	}
	if len(m.HardwareRequirements.Devices) == 0 {
		return nil
	}
	have := devices()
	for _, f := range m.HardwareRequirements.Devices {
		match, err := matcher(f)
		if err != nil {
			return refuse("asks for a device in a way that cannot be read: %v", err)
		}
		if !slices.ContainsFunc(have, match) {
			return refuse("needs a device that this server does not have: %s", f.Description)
		}
	}
	return nil
}

// device is one processor or display adapter.
type device struct {
	Class, Product, Vendor, Driver string // "" where not known
	Capabilities                   []string
}

// matcher makes a filter a test (s9pk v2, DeviceFilter): what it names the device
// must have.
func matcher(f s9pk.DeviceFilter) (func(device) bool, error) {
	var product, vendor *regexp.Regexp
	for from, to := range map[*string]**regexp.Regexp{f.Product: &product, f.Vendor: &vendor} {
		if from == nil {
			continue
		}
		re, err := regexp.Compile(*from)
		if err != nil {
			return nil, err
		}
		*to = re
	}
	return func(d device) bool {
		return d.Class == f.Class &&
			(product == nil || d.Product != "" && product.MatchString(d.Product)) &&
			(vendor == nil || d.Vendor != "" && vendor.MatchString(d.Vendor)) &&
			(f.Driver == nil || f.Class != s9pk.ClassDisplay || *f.Driver == d.Driver) &&
			!slices.ContainsFunc(f.Capabilities, func(c string) bool { return !slices.Contains(d.Capabilities, c) })
	}, nil
}

// findDevices reads processors and display adapters from the kernel's files
// below root.
func findDevices(root string) []device {
	list := processors(filepath.Join(root, "proc/cpuinfo"))
	found, _ := filepath.Glob(filepath.Join(root, "sys/bus/pci/devices/*"))
	for _, dir := range found {
		read := func(name string) string {
			text, _ := os.ReadFile(filepath.Join(dir, name))
			return strings.TrimPrefix(string(bytes.TrimSpace(text)), "0x")
		}
		if !strings.HasPrefix(read("class"), "03") { // PCI class: display controller
			continue
		}
		d := device{Class: s9pk.ClassDisplay}
		d.Vendor, d.Product = pciNames(root, read("vendor"), read("device"))
		if link, err := os.Readlink(filepath.Join(dir, "driver")); err == nil {
			d.Driver = filepath.Base(link)
		}
		list = append(list, d)
	}
	return list
}

func processors(file string) []device {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil
	}
	vendors := map[string]string{"AuthenticAMD": "Advanced Micro Devices [AMD]", "GenuineIntel": "Intel Corp."}
	var list []device
	for block := range strings.SplitSeq(string(text), "\n\n") {
		d := device{Class: s9pk.ClassProcessor}
		for line := range strings.Lines(block) {
			key, value, _ := strings.Cut(line, ":")
			value = strings.TrimSpace(value)
			switch strings.TrimSpace(key) {
			case "vendor_id":
				d.Vendor = value
				if name, ok := vendors[value]; ok {
					d.Vendor = name
				}
			case "model name":
				d.Product = value
			case "flags", "Features":
				d.Capabilities = strings.Fields(value)
			}
		}
		if d.Product != "" || d.Vendor != "" || d.Capabilities != nil {
			list = append(list, d)
		}
	}
	return list
}

// pciNames looks numbers up in the list of PCI ids, where the system has one;
// else the three great vendors have names all the same, and a product is its
// number.
func pciNames(root, vendor, product string) (vendorName, productName string) {
	vendorName = map[string]string{"1002": "Advanced Micro Devices, Inc. [AMD/ATI]", "10de": "NVIDIA Corporation", "8086": "Intel Corporation"}[vendor]
	productName = fmt.Sprintf("Device %s", product)
	for _, name := range []string{"usr/share/misc/pci.ids", "usr/share/hwdata/pci.ids"} {
		f, err := os.Open(filepath.Join(root, name))
		if err != nil {
			continue
		}
		defer f.Close()
		inside := false
		for lines := bufio.NewScanner(f); lines.Scan(); {
			line := lines.Text()
			switch {
			case strings.HasPrefix(line, vendor+"  "):
				inside, vendorName = true, line[len(vendor)+2:]
			case inside && strings.HasPrefix(line, "\t"+product+"  "):
				return vendorName, line[len(product)+3:]
			case inside && line != "" && line[0] != '\t' && line[0] != '#':
				return vendorName, productName
			}
		}
	}
	return vendorName, productName
}
