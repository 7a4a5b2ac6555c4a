// Package pack turns a service project into a signed package.
//
// A project is a folder as the StartOS SDK lays it out:
//
//	javascript/index.js   the bundle; `node` evaluates it for its manifest export
//	icon.EXT              exactly one
//	LICENSE, LICENSE.md   exactly one; stored as LICENSE.md
//	instructions.md
//	assets/               optional
//	images/ID.json        optional: what image ID is made of, see package image
//	images/ARCH/ID.squashfs, .json, .env   optional: image ID made already
//
// or one that is described as data: service.yaml in the place of the bundle, and
// of images/ and instructions.md too where it says those; see package service.
//
// An image comes, in this order of preference, from Options.Images, from
// images/ID.json, or from what the manifest says (dockerTag, dockerBuild, or
// packed for files that are there already).
//
// Pack checks the result with package validate before it writes, and writes the
// file whole or not at all. The same project, key, epoch and tools give the same
// bytes. Beyond the reference packer it needs no git repository, and it does not
// add the developer's file times and owners to a package.
package pack
