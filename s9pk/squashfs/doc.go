// Package squashfs makes the SquashFS members of packages and reads them in
// place.
//
// Create feeds a tar stream to mksquashfs, so that an image keeps the owners and
// modes of its source without any privilege, and the same stream gives the same
// bytes. Open lists and reads an image over any io.ReaderAt, such as the body of
// a member inside a package, without mounting it; the format itself is handled
// by github.com/diskfs/go-diskfs. Images compressed with gzip, xz, lzma and zstd
// are read; lzo and lz4 are not. Of modes the library hands on the permissions:
// set-user-ID, set-group-ID and sticky bits are in an image but not shown.
package squashfs
