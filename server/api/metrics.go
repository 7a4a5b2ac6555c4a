package api

import "time"

// Metrics is how busy the server and its packages are.
type Metrics struct {
	Time     time.Time      `json:"time" doc:"when they were read"`
	Host     HostMetrics    `json:"host"`
	Server   ServerMetrics  `json:"server"`
	Packages []PackageStats `json:"packages" doc:"those with a running container"`
}

// HostMetrics are those of the machine.
type HostMetrics struct {
	CPUs            int                `json:"cpus" doc:"processors" example:"4"`
	CPUSeconds      map[string]float64 `json:"cpuSeconds" doc:"seconds since the boot, of all processors, by mode: user, nice, system, idle, iowait, irq, softirq, steal"`
	Load1           float64            `json:"load1" doc:"tasks that run or wait, over one minute" example:"0.4"`
	MemoryTotal     int64              `json:"memoryTotal" doc:"bytes" example:"8321499136"`
	MemoryAvailable int64              `json:"memoryAvailable" doc:"bytes that programs can still take" example:"6012954214"`
	SwapTotal       int64              `json:"swapTotal" doc:"bytes"`
	SwapFree        int64              `json:"swapFree" doc:"bytes"`
	DiskTotal       int64              `json:"diskTotal" doc:"bytes of the file system with the server's folder" example:"500107862016"`
	DiskAvailable   int64              `json:"diskAvailable" doc:"bytes" example:"391707862016"`
	UptimeSeconds   float64            `json:"uptimeSeconds" doc:"since the boot"`
}

// ServerMetrics are those of the server program.
type ServerMetrics struct {
	UptimeSeconds float64 `json:"uptimeSeconds" doc:"since it started"`
	MemoryBytes   int64   `json:"memoryBytes" doc:"what its runtime holds"`
	Goroutines    int     `json:"goroutines"`
	Streams       int64   `json:"streams" doc:"open event streams"`
	Uploads       int64   `json:"uploads" doc:"uploads under way"`
	Revision      uint64  `json:"revision" doc:"of the state"`
}

// PackageStats is what one package's container uses.
type PackageStats struct {
	ID           string  `json:"id" example:"hello-world"`
	CPUSeconds   float64 `json:"cpuSeconds" doc:"processor time since its container started" example:"12.5"`
	Memory       int64   `json:"memory" doc:"bytes in use, page cache included" example:"73400320"`
	MemoryLimit  *int64  `json:"memoryLimit,omitempty" doc:"bytes"`
	MemoryCache  int64   `json:"memoryCache" doc:"bytes of memory that the kernel can take back"`
	Swap         *int64  `json:"swap,omitempty" doc:"bytes; left out where it is not counted"`
	PIDs         int64   `json:"pids" doc:"tasks" example:"14"`
	PIDsLimit    *int64  `json:"pidsLimit,omitempty"`
	OOMKills     int64   `json:"oomKills" doc:"processes that were ended for want of memory"`
	IOReadBytes  int64   `json:"ioReadBytes"`
	IOWriteBytes int64   `json:"ioWriteBytes"`
}

// Subcontainer is one image that a package runs.
type Subcontainer struct {
	ID    string `json:"id" doc:"for the shell"`
	Image string `json:"image" doc:"which of the package's images it is" example:"main"`
}

// ShellOptions say what runs in a terminal inside a package.
type ShellOptions struct {
	Command      []string // empty means /bin/sh
	User         string   // "user" or "user:group"; "" means root
	Subcontainer string   // "" means the package's own container
	Term         string   // "" means xterm
	Rows, Cols   uint16
}

// ShellExit is how a program in a terminal ended.
type ShellExit struct {
	Code   int `json:"code" doc:"its exit status; -1 when a signal ended it"`
	Signal int `json:"signal,omitempty" doc:"number of that signal"`
}

// ShellMessage is a text message of the shell's WebSocket; binary ones are what
// is typed and shown.
type ShellMessage struct {
	Resize  *ShellSize `json:"resize,omitempty" doc:"from the client: its window has another size"`
	Exit    *ShellExit `json:"exit,omitempty" doc:"from the server, at last"`
	Problem string     `json:"problem,omitempty" doc:"from the server, in place of exit"`
}

// ShellSize is the size of a terminal's window in characters.
type ShellSize struct {
	Rows uint16 `json:"rows"`
	Cols uint16 `json:"cols"`
}
