package lxcrt

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// imageBlock is what squashfs images are padded to as they are made, unless that
// is turned off: the kernel reads the last data in whole blocks of up to this
// size, and fails where a device ends in the middle of one.
const imageBlock = 4096

func wholeBlocks(size int64) int64 { return (size + imageBlock - 1) &^ (imageBlock - 1) }

// padEnd lengthens a file with zeros to where the last block of the image at
// offset ends, if the file ends within it: a loop device leaves an incomplete
// sector out. Every other file is only looked at.
func padEnd(file string, offset, size int64) error {
	st, err := os.Stat(file)
	if err != nil {
		return err
	}
	if size == 0 {
		size = st.Size() - offset
	}
	end := offset + wholeBlocks(size)
	if end <= st.Size() || size <= 0 || offset+size > st.Size() { // what is cut off says so when it is mounted
		return nil
	}
	if err := os.Truncate(file, end); err != nil {
		return fmt.Errorf("pad the last block: %w", err)
	}
	return nil
}

// attachLoop binds size bytes of file from offset on to a free loop device,
// read-only unless writable is set. The device goes when its last user does:
// the returned descriptor, and every file system mounted from it. Size 0 means
// up to the end of the file; it is rounded up to whole blocks.
func attachLoop(file string, offset, size int64, writable bool) (*os.File, error) {
	mode := os.O_RDONLY
	if writable {
		mode = os.O_RDWR
	}
	backing, err := os.OpenFile(file, mode, 0)
	if err != nil {
		return nil, err
	}
	defer backing.Close()
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("loop devices: %w: %w", ErrNotSupported, err)
	}
	defer control.Close()
	cfg := unix.LoopConfig{Fd: uint32(backing.Fd())}
	cfg.Info.Offset, cfg.Info.Sizelimit = uint64(offset), uint64(wholeBlocks(size))
	cfg.Info.Flags = unix.LO_FLAGS_AUTOCLEAR
	if !writable {
		cfg.Info.Flags |= unix.LO_FLAGS_READ_ONLY
	}
	copy(cfg.Info.File_name[:len(cfg.Info.File_name)-1], file)
	for range 64 { // another process may take the free device first
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, fmt.Errorf("free loop device: %w", err)
		}
		dev, err := os.OpenFile(fmt.Sprintf("/dev/loop%d", n), mode, 0)
		if err != nil {
			return nil, err
		}
		err = unix.IoctlLoopConfigure(int(dev.Fd()), &cfg)
		if err == nil {
			return dev, nil
		}
		dev.Close()
		if !errors.Is(err, unix.EBUSY) {
			return nil, fmt.Errorf("loop device %d for %s: %w", n, file, err)
		}
	}
	return nil, fmt.Errorf("loop device for %s: %w", file, unix.EBUSY)
}
