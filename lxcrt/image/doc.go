// Package image makes root file systems for containers: squashfs images with
// Debian 13 and Node.js, built from Debian's packages by mmdebstrap (Build), those
// with the content of a folder (FromDir), and those of an OCI image layout
// (FromOCI). Guest builds the static program that lxcrt's Options.Guest takes.
//
// Packages come from where the host's own apt gets them: its sources in either
// format, with the suite rewritten, its keyrings, its proxies and credentials.
// So a mirror, an https source or a proxy that works for the host works here,
// and no host is named in this package.
//
// Whatever is kept in a cache has its hash beside it, and each call checks it: an
// image that was changed is not used but made again.
//
// An image of Build is kept under a key of everything that goes into it but the package
// versions. It is made anew when the file is gone or damaged, when the recipe
// changes, or when the caller asks for it. Built twice from the same package versions it is
// the same, byte for byte: times, order and everything that a build leaves of
// itself are settled.
package image
