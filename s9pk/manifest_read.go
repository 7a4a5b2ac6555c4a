package s9pk

import (
	"encoding/json"
	"errors"
	"regexp"
	"slices"
	"strconv"

	"github.com/selfstead/selfstead/s9pk/exver"
)

// FieldError is one thing that is wrong with a manifest.
type FieldError struct {
	Field  string // "images.main.arch"; "" for the document
	Reason string
}

func (e *FieldError) Error() string {
	if e.Field == "" {
		return "s9pk: manifest " + e.Reason
	}
	return "s9pk: manifest: " + printable(e.Field) + " " + e.Reason
}

// Unwrap returns ErrManifest.
func (e *FieldError) Unwrap() error { return ErrManifest }

// ParseManifest reads a manifest. The error joins a *FieldError for everything
// that is wrong with it.
func ParseManifest(b []byte) (*Manifest, error) {
	v, err := parseJSON(b)
	if err != nil {
		return nil, &FieldError{"", err.Error()}
	}
	d := &manifestDecoder{}
	m := d.manifest(v)
	if err := d.err(); err != nil {
		return nil, err
	}
	return m, nil
}

// UnmarshalJSON is ParseManifest.
func (m *Manifest) UnmarshalJSON(b []byte) error {
	parsed, err := ParseManifest(b)
	if err == nil {
		*m = *parsed
	}
	return err
}

// FieldErrors takes apart what ParseManifest returned.
func FieldErrors(err error) []*FieldError {
	var list []*FieldError
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range joined.Unwrap() {
			list = append(list, FieldErrors(e)...)
		}
		return list
	}
	var fe *FieldError
	if errors.As(err, &fe) {
		list = append(list, fe)
	}
	return list
}

var idPattern = regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`)

// ValidID says whether s can be the id of a package, an image or a volume.
func ValidID(s string) bool { return idPattern.MatchString(s) }

func (d *manifestDecoder) id(path, s string) {
	if !ValidID(s) {
		d.fail(path, "%.100q is no id: lower-case letters and digits, in groups joined by single hyphens", s)
	}
}

func (d *manifestDecoder) manifest(v jsonValue) *Manifest {
	m := &Manifest{PackageRepo: "https://example.com/", Plugins: []string{}, Satisfies: []exver.VersionString{},
		Images: map[string]Image{}, Volumes: []string{}, Dependencies: map[string]Dependency{}, HardwareRequirements: HardwareRequirements{Devices: []DeviceFilter{}}}
	m.OSVersion, _ = exver.ParseVersion(OSVersion) // a constant that parses
	f := d.object("", v, "id", "version", "canMigrateTo", "canMigrateFrom", "title", "description", "releaseNotes", "gitHash", "license",
		"packageRepo", "upstreamRepo", "marketingUrl", "donationUrl", "osVersion", "sdkVersion", "hardwareAcceleration", "userspaceFilesystems",
		"virtualNetworking", "plugins", "satisfies", "images", "volumes", "dependencies", "hardwareRequirements")
	if f == nil {
		return m
	}
	f.with("id", func(path string, v jsonValue) {
		if m.ID = d.str(path, v); v == m.ID {
			d.id(path, m.ID)
		}
	})
	f.with("version", parsed(d, &m.Version, exver.ParseVersionString))
	f.with("canMigrateTo", parsed(d, &m.CanMigrateTo, exver.ParseRange))
	f.with("canMigrateFrom", parsed(d, &m.CanMigrateFrom, exver.ParseRange))
	f.with("title", d.into(&m.Title))
	f.with("description", func(path string, v jsonValue) {
		if f := d.object(path, v, "short", "long"); f != nil {
			f.with("short", d.intoLocale(&m.Description.Short))
			f.with("long", d.intoLocale(&m.Description.Long))
		}
	})
	f.with("releaseNotes", d.intoLocale(&m.ReleaseNotes))
	f.nullable("gitHash", d.intoPtr(&m.GitHash))
	f.with("license", d.into(&m.License))
	f.maybe("packageRepo", d.url(&m.PackageRepo))
	f.with("upstreamRepo", d.url(&m.UpstreamRepo))
	f.nullable("marketingUrl", d.urlPtr(&m.MarketingURL))
	f.nullable("donationUrl", d.urlPtr(&m.DonationURL))
	f.maybe("osVersion", parsed(d, &m.OSVersion, exver.ParseVersion))
	f.nullable("sdkVersion", func(path string, v jsonValue) {
		m.SDKVersion = new(exver.Version)
		parsed(d, m.SDKVersion, exver.ParseVersion)(path, v)
	})
	f.maybe("hardwareAcceleration", d.flag(&m.HardwareAcceleration))
	f.maybe("userspaceFilesystems", d.flag(&m.UserspaceFilesystems))
	f.maybe("virtualNetworking", d.flag(&m.VirtualNetworking))
	f.maybe("plugins", d.set(&m.Plugins, func(path, s string) {
		if s != "url-v0" {
			d.fail(path, "%.100q is no plugin that is known: url-v0", s)
		}
	}))
	f.maybe("satisfies", func(path string, v jsonValue) { m.Satisfies = d.versions(path, v) })
	f.with("images", func(path string, v jsonValue) {
		d.each(path, v, true, func(path, key string, v jsonValue) { m.Images[key] = d.image(path, v) })
	})
	f.with("volumes", d.set(&m.Volumes, func(path, s string) {
		if s != "BACKUP" {
			d.id(path, s)
		}
	}))
	f.maybe("dependencies", func(path string, v jsonValue) {
		d.each(path, v, true, func(path, key string, v jsonValue) { m.Dependencies[key] = d.dependency(path, v) })
	})
	f.maybe("hardwareRequirements", func(path string, v jsonValue) { m.HardwareRequirements = d.hardware(path, v) })
	return m
}

// each walks a map, whose keys may have to be ids.
func (d *manifestDecoder) each(path string, v jsonValue, ids bool, fn func(path, key string, v jsonValue)) {
	o, ok := v.(*jsonObject)
	if !ok {
		d.fail(path, "is %s, need an object", kindOf(v))
		return
	}
	for i, k := range o.keys {
		if ids {
			d.id(join(path, k), k)
		}
		fn(join(path, k), k, o.values[i])
	}
}

func (d *manifestDecoder) versions(path string, v jsonValue) []exver.VersionString {
	out := []exver.VersionString{}
	list, ok := v.([]jsonValue)
	if !ok {
		d.fail(path, "is %s, need a list", kindOf(v))
	}
	for i, item := range list {
		var vs exver.VersionString
		parsed(d, &vs, exver.ParseVersionString)(join(path, strconv.Itoa(i)), item)
		out = append(out, vs)
	}
	slices.SortStableFunc(out, func(a, b exver.VersionString) int { return a.CompareTotal(b.ExtendedVersion) })
	return slices.CompactFunc(out, func(a, b exver.VersionString) bool { return a.Equal(b.ExtendedVersion) })
}

func (d *manifestDecoder) image(path string, v jsonValue) (img Image) {
	f := d.object(path, v, "source", "arch", "emulateMissingAs", "nvidiaContainer")
	if f == nil {
		return img
	}
	f.with("source", func(path string, v jsonValue) { img.Source = d.imageSource(path, v) })
	f.with("arch", d.set(&img.Arch, nil))
	f.nullable("emulateMissingAs", d.intoPtr(&img.EmulateMissingAs))
	f.maybe("nvidiaContainer", d.flag(&img.NvidiaContainer))
	return img
}

func (d *manifestDecoder) imageSource(path string, v jsonValue) (src ImageSource) {
	if v == "packed" {
		return src
	}
	o, ok := v.(*jsonObject)
	if !ok || len(o.keys) != 1 || o.keys[0] != "dockerTag" && o.keys[0] != "dockerBuild" {
		d.fail(path, `need "packed", dockerTag or dockerBuild`)
		return src
	}
	path, v = join(path, o.keys[0]), o.values[0]
	if o.keys[0] == "dockerTag" {
		src.DockerTag = d.str(path, v)
		return src
	}
	src.DockerBuild = &DockerBuild{}
	f := d.object(path, v, "workdir", "dockerfile", "buildArgs")
	if f == nil {
		return src
	}
	f.nullable("workdir", d.intoPtr(&src.DockerBuild.Workdir))
	f.nullable("dockerfile", d.intoPtr(&src.DockerBuild.Dockerfile))
	f.nullable("buildArgs", func(path string, v jsonValue) {
		args := map[string]BuildArg{}
		d.each(path, v, false, func(path, key string, v jsonValue) {
			if s, ok := v.(string); ok {
				args[key] = BuildArg{Value: s}
				return
			}
			var arg BuildArg
			if f := d.object(path, v, "env"); f != nil {
				f.with("env", d.intoPtr(&arg.Env))
			}
			args[key] = arg
		})
		src.DockerBuild.BuildArgs = args
	})
	return src
}

func (d *manifestDecoder) dependency(path string, v jsonValue) (dep Dependency) {
	f := d.object(path, v, "description", "optional")
	if f == nil {
		return dep
	}
	f.nullable("description", func(path string, v jsonValue) { l := d.locale(path, v); dep.Description = &l })
	f.with("optional", d.flag(&dep.Optional))
	// The first of the two that is there counts; where it cannot be read, the
	// reference takes it as absent.
	for i, k := range f.o.keys {
		if k != "metadata" && k != "s9pk" {
			continue
		}
		try := &manifestDecoder{}
		if k == "metadata" {
			meta := &DependencyMetadata{}
			if f := try.object("", f.o.values[i], "title", "icon"); f != nil {
				f.with("title", try.intoLocale(&meta.Title))
				f.with("icon", try.into(&meta.Icon))
			}
			if meta.Icon = normalizePathOrURL(meta.Icon); try.err() == nil {
				dep.Metadata = meta
			}
			break
		}
		ref := &PackageReference{}
		if v := f.o.values[i]; v != nil {
			location := normalizePathOrURL(try.str("", v))
			ref.Location = &location
		}
		if try.err() == nil {
			dep.Package = ref
		}
		break
	}
	return dep
}

func (d *manifestDecoder) hardware(path string, v jsonValue) (h HardwareRequirements) {
	h.Devices = []DeviceFilter{}
	f := d.object(path, v, "device", "ram", "arch")
	if f == nil {
		return h
	}
	f.maybe("device", func(path string, v jsonValue) {
		list, ok := v.([]jsonValue)
		if !ok {
			d.fail(path, "is %s, need a list", kindOf(v))
		}
		for i, item := range list {
			h.Devices = append(h.Devices, d.device(join(path, strconv.Itoa(i)), item))
		}
	})
	f.nullable("ram", func(path string, v jsonValue) {
		n, isNumber := v.(json.Number)
		ram, err := strconv.ParseUint(string(n), 10, 64)
		if !isNumber || err != nil {
			d.fail(path, "need a whole number of bytes")
		}
		h.RAM = &ram
	})
	f.nullable("arch", d.set(&h.Arch, nil))
	return h
}

func (d *manifestDecoder) device(path string, v jsonValue) (dev DeviceFilter) {
	f := d.object(path, v, "description", "class", "product", "vendor", "capabilities", "driver")
	if f == nil {
		return dev
	}
	pattern := func(p **string) func(string, jsonValue) {
		return func(path string, v jsonValue) {
			d.intoPtr(p)(path, v)
			if _, err := regexp.Compile(**p); err != nil {
				d.fail(path, "%v", err)
			}
		}
	}
	f.with("description", d.into(&dev.Description))
	f.with("class", func(path string, v jsonValue) {
		if dev.Class = d.str(path, v); v == dev.Class && dev.Class != ClassProcessor && dev.Class != ClassDisplay {
			d.fail(path, "%.100q is no device class: processor, display", dev.Class)
		}
	})
	f.nullable("product", pattern(&dev.Product))
	f.nullable("vendor", pattern(&dev.Vendor))
	f.nullable("capabilities", d.set(&dev.Capabilities, nil))
	f.nullable("driver", d.intoPtr(&dev.Driver))
	return dev
}
