package s9pk

import (
	"strconv"
)

// MarshalJSON writes the manifest as StartOS writes it, byte for byte: compact,
// fields in their order, maps and sets sorted.
func (m Manifest) MarshalJSON() ([]byte, error) {
	w := &jsonWriter{}
	w.open('{')
	str := func(key, s string) { w.key(key); w.str(s) }
	optional := func(key string, s *string) { w.key(key); w.optional(s) }
	flag := func(key string, v bool) { w.key(key); w.boolean(v) }
	str("id", m.ID)
	str("version", m.Version.String())
	str("canMigrateTo", m.CanMigrateTo.String())
	str("canMigrateFrom", m.CanMigrateFrom.String())
	str("title", m.Title)
	w.key("description")
	w.open('{')
	w.key("short")
	m.Description.Short.write(w)
	w.key("long")
	m.Description.Long.write(w)
	w.close('}')
	w.key("releaseNotes")
	m.ReleaseNotes.write(w)
	optional("gitHash", m.GitHash)
	str("license", m.License)
	str("packageRepo", m.PackageRepo)
	str("upstreamRepo", m.UpstreamRepo)
	optional("marketingUrl", m.MarketingURL)
	optional("donationUrl", m.DonationURL)
	str("osVersion", m.OSVersion.String())
	var sdk *string
	if m.SDKVersion != nil {
		s := m.SDKVersion.String()
		sdk = &s
	}
	optional("sdkVersion", sdk)
	flag("hardwareAcceleration", m.HardwareAcceleration)
	flag("userspaceFilesystems", m.UserspaceFilesystems)
	flag("virtualNetworking", m.VirtualNetworking)
	w.key("plugins")
	w.list(m.Plugins)
	w.key("satisfies")
	w.open('[')
	for _, v := range m.Satisfies {
		w.sep()
		w.str(v.String())
	}
	w.close(']')
	w.key("images")
	w.open('{')
	for _, id := range sortedKeys(m.Images) {
		w.key(id)
		m.Images[id].write(w)
	}
	w.close('}')
	w.key("volumes")
	w.list(m.Volumes)
	w.key("dependencies")
	w.open('{')
	for _, id := range sortedKeys(m.Dependencies) {
		w.key(id)
		m.Dependencies[id].write(w)
	}
	w.close('}')
	w.key("hardwareRequirements")
	m.HardwareRequirements.write(w)
	w.close('}')
	return w.b, nil
}

func (img Image) write(w *jsonWriter) {
	w.open('{')
	w.key("source")
	switch {
	case img.Source.DockerBuild != nil:
		w.open('{')
		w.key("dockerBuild")
		img.Source.DockerBuild.write(w)
		w.close('}')
	case img.Source.DockerTag != "":
		w.open('{')
		w.key("dockerTag")
		w.str(img.Source.DockerTag)
		w.close('}')
	default:
		w.str("packed")
	}
	w.key("arch")
	w.list(img.Arch)
	w.key("emulateMissingAs")
	w.optional(img.EmulateMissingAs)
	w.key("nvidiaContainer")
	w.boolean(img.NvidiaContainer)
	w.close('}')
}

func (b *DockerBuild) write(w *jsonWriter) {
	w.open('{')
	w.key("workdir")
	w.optional(b.Workdir)
	w.key("dockerfile")
	w.optional(b.Dockerfile)
	if b.BuildArgs != nil {
		w.key("buildArgs")
		w.open('{')
		for _, k := range sortedKeys(b.BuildArgs) {
			w.key(k)
			arg := b.BuildArgs[k]
			if arg.Env == nil {
				w.str(arg.Value)
				continue
			}
			w.open('{')
			w.key("env")
			w.str(*arg.Env)
			w.close('}')
		}
		w.close('}')
	}
	w.close('}')
}

func (dep Dependency) write(w *jsonWriter) {
	w.open('{')
	w.key("description")
	if dep.Description == nil {
		w.optional(nil)
	} else {
		dep.Description.write(w)
	}
	w.key("optional")
	w.boolean(dep.Optional)
	switch {
	case dep.Metadata != nil:
		w.key("metadata")
		w.open('{')
		w.key("title")
		dep.Metadata.Title.write(w)
		w.key("icon")
		w.str(dep.Metadata.Icon)
		w.close('}')
	case dep.Package != nil:
		w.key("s9pk")
		w.optional(dep.Package.Location)
	}
	w.close('}')
}

func (h HardwareRequirements) write(w *jsonWriter) {
	w.open('{')
	w.key("device")
	w.open('[')
	for _, dev := range h.Devices {
		w.sep()
		dev.write(w)
	}
	w.close(']')
	w.key("ram")
	if h.RAM == nil {
		w.optional(nil)
	} else {
		w.b = strconv.AppendUint(w.b, *h.RAM, 10)
	}
	w.key("arch")
	if h.Arch == nil {
		w.optional(nil)
	} else {
		w.list(h.Arch)
	}
	w.close('}')
}

func (dev DeviceFilter) write(w *jsonWriter) {
	w.open('{')
	w.key("description")
	w.str(dev.Description)
	w.key("class")
	w.str(dev.Class)
	w.key("product")
	w.optional(dev.Product)
	w.key("vendor")
	w.optional(dev.Vendor)
	w.key("capabilities")
	if dev.Capabilities == nil {
		w.optional(nil)
	} else {
		w.list(dev.Capabilities)
	}
	w.key("driver")
	w.optional(dev.Driver)
	w.close('}')
}
