package s9pk

import (
	"github.com/selfstead/selfstead/s9pk/exver"
)

// OSVersion is the release of StartOS that this package follows; manifests that
// do not say which version they were made for are taken to be made for it.
const OSVersion = "0.4.0-beta.10"

// ManifestPath is where the manifest lies in a package.
const ManifestPath = "manifest.json"

// Manifest describes a package. Fields stand in the order in which they are
// written. Unknown fields are dropped on reading.
type Manifest struct {
	ID      string              // [a-z0-9]+(-[a-z0-9]+)*
	Version exver.VersionString // keeps its text
	// CanMigrateTo is the versions that this one can be moved back to.
	CanMigrateTo exver.Range
	// CanMigrateFrom is the versions whose data this one takes over.
	CanMigrateFrom exver.Range
	Title          string
	Description    Description
	ReleaseNotes   LocaleString // Markdown
	GitHash        *string
	License        string // SPDX by convention
	PackageRepo    string // URL; "https://example.com/" where absent
	UpstreamRepo   string // URL
	MarketingURL   *string
	DonationURL    *string
	OSVersion      exver.Version // OSVersion where absent
	SDKVersion     *exver.Version

	HardwareAcceleration bool // wants the graphics devices
	UserspaceFilesystems bool // wants /dev/fuse
	VirtualNetworking    bool // wants /dev/net/tun

	Plugins   []string              // sorted; "url-v0" is the only one there is
	Satisfies []exver.VersionString // sorted; versions this release can stand in for
	Images    map[string]Image
	Volumes   []string // sorted

	Dependencies         map[string]Dependency
	HardwareRequirements HardwareRequirements
}

// Description is what the package is, in a line and at length.
type Description struct {
	Short, Long LocaleString
}

// Image is a root file system that the package brings, for some architectures.
type Image struct {
	Source           ImageSource
	Arch             []string // sorted
	EmulateMissingAs *string  // architecture that stands in for those that are not there
	NvidiaContainer  bool
}

// ImageSource tells how an image is made. In a built package it is always
// "packed": the zero value.
type ImageSource struct {
	DockerTag   string
	DockerBuild *DockerBuild
}

// Packed says that the image lies in the package.
func (s ImageSource) Packed() bool { return s.DockerTag == "" && s.DockerBuild == nil }

// DockerBuild is how to build an image.
type DockerBuild struct {
	Workdir, Dockerfile *string
	BuildArgs           map[string]BuildArg // nil where absent
}

// BuildArg is a value, or the name of an environment variable that holds it.
type BuildArg struct {
	Value string
	Env   *string
}

// Dependency is another package that this one works with.
type Dependency struct {
	Description *LocaleString
	Optional    bool
	// Metadata and Package say where title and icon come from when the package
	// is built; a built package has neither.
	Metadata *DependencyMetadata
	Package  *PackageReference
}

// DependencyMetadata is what to show of a package that is not installed.
type DependencyMetadata struct {
	Title LocaleString
	Icon  string // URL; a path has the prefix "file://"
}

// PackageReference points at a built package to take title and icon from.
type PackageReference struct {
	Location *string // URL; a path has the prefix "file://"; nil for none
}

// HardwareRequirements is what a device must have.
type HardwareRequirements struct {
	Devices []DeviceFilter
	RAM     *uint64  // bytes
	Arch    []string // nil for any; sorted
}

// Device classes of DeviceFilter.
const (
	ClassProcessor = "processor"
	ClassDisplay   = "display"
)

// DeviceFilter asks for one device. Product and Vendor are regular expressions
// that have to be found somewhere in the device's text.
type DeviceFilter struct {
	Description     string
	Class           string
	Product, Vendor *string
	Capabilities    []string // nil where absent; sorted
	Driver          *string
}

// Dependencies' files, images and all other paths of a package.
const (
	LicensePath      = "LICENSE.md"
	InstructionsPath = "instructions.md"
	JavascriptPath   = "javascript.squashfs"
	AssetsPath       = "assets.squashfs"
	DependenciesPath = "dependencies"
	ImagesPath       = "images"
)
