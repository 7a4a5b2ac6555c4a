package lxcrt

import (
	"fmt"
	"path"
	"strings"
)

// LogName is the file with a container's newest lines; older ones are LogName.1
// (the newest of them), LogName.2 and so on.
const LogName = "container.log"

// Log says where a container's output goes: standard output and error of PID 1
// and of all that inherit them, and the console, each line with its time and
// stream, as package lxcrt/logs reads them.
//
// The lines are written by a small process of the container's own. It goes on
// when the process that started the container dies, so nothing that the container
// has written is lost by that; it ends when the container does, and Wait returns
// after it. A container never waits for its log longer than a write to the disk
// takes: what a full disk refuses is counted, and the next line that can be
// written says how many are missing.
type Log struct {
	// Dir is the host folder of the files, made if missing, for one container
	// alone. Empty is the folder "log" of the container, which goes with Destroy.
	Dir string `json:"dir,omitempty"`
	// MaxSize is where a file is full, in bytes; 0 means 8 MiB, 64 KiB is the least.
	MaxSize int64 `json:"maxSize,omitempty"`
	// MaxFiles is how many are kept, the current one included; 0 means 4.
	MaxFiles int `json:"maxFiles,omitempty"`
}

func (l *Log) check() string {
	switch {
	case l == nil:
		return ""
	case l.Dir != "" && (!path.IsAbs(l.Dir) || strings.ContainsRune(l.Dir, 0)):
		return fmt.Sprintf("folder %q", l.Dir)
	case l.MaxSize != 0 && l.MaxSize < 64<<10:
		return fmt.Sprintf("files of %d bytes; 64 KiB is the least", l.MaxSize)
	case l.MaxFiles < 0 || l.MaxFiles > 1000:
		return fmt.Sprintf("%d files", l.MaxFiles)
	}
	return ""
}

// settled fills in what was left open; place is the container's folder.
func (l Log) settled(place string) Log {
	if l.Dir == "" {
		l.Dir = path.Join(place, "log")
	}
	if l.MaxSize == 0 {
		l.MaxSize = 8 << 20
	}
	if l.MaxFiles == 0 {
		l.MaxFiles = 4
	}
	return l
}
