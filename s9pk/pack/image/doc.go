// Package image builds the root file systems that packages carry: one SquashFS
// file for each image and architecture, with the two side files that say how a
// container starts from it.
//
// A Source says what it is made of: an OCI image layout or archive, a folder, a
// set of Debian packages, or an image that docker or podman pulls or builds.
// Every source becomes the same thing on the way, a tree of files merged from
// layers as the OCI image specification says (whiteouts included), which is
// written as one tar stream in name order; so no source needs root (but for
// Debian packages, where mmdebstrap chooses), owners stay as they are in the
// image, and equal contents give equal bytes.
//
// Finished images are kept in a cache folder under a name made of what they were
// built from: the digest of an OCI manifest, the identity of a docker image, the
// contents of a folder, or the package list together with the state of the
// archives that it was resolved against.
package image
