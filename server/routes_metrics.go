package server

import (
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/selfstead/selfstead/server/api"
	"github.com/selfstead/selfstead/server/metrics"
)

// Inspector looks into running packages.
type Inspector interface {
	Stats(ctx context.Context, id string) (api.PackageStats, error)
	AllStats(ctx context.Context) ([]api.PackageStats, error)
	Subcontainers(ctx context.Context, id string) ([]api.Subcontainer, error)
}

func (s *Server) metricRoutes() {
	if s.deps.Inspector == nil {
		return
	}
	type metricsInput struct {
		Accept string `header:"Accept" maxLength:"1000" doc:"application/json, or application/openmetrics-text or text/plain for OpenMetrics"`
	}
	type metricsOutput struct {
		ContentType string `header:"Content-Type"`
		Body        []byte
	}
	shape := s.api.OpenAPI().Components.Schemas.Schema(typeOf[api.Metrics](), true, "Metrics")
	add(s, huma.Operation{
		OperationID: "get-metrics", Method: http.MethodGet, Path: "/v1/metrics", Tags: []string{tagMetrics},
		Summary: "Read how busy the server is", Description: "As JSON, or as OpenMetrics 1.0 for those who ask for text: what scrapes needs only the address and a token.",
		Responses: map[string]*huma.Response{"200": {Description: "OK", Content: map[string]*huma.MediaType{
			"application/json":             {Schema: shape},
			"application/openmetrics-text": {Schema: &huma.Schema{Type: huma.TypeString}},
		}}},
	}, func(ctx context.Context, in *metricsInput) (*metricsOutput, error) {
		m, err := s.metrics(ctx)
		if err != nil {
			return nil, err
		}
		if wantsText(in.Accept) {
			return &metricsOutput{metrics.ContentType, metrics.Text(families(m))}, nil
		}
		text, err := json.Marshal(m)
		return &metricsOutput{"application/json", text}, err
	})
	type metricEventsInput struct {
		Every int `query:"every" minimum:"1" maximum:"3600" default:"5" doc:"seconds between two events"`
	}
	addStream(s, huma.Operation{
		OperationID: "follow-metrics", Path: "/v1/metrics/events", Tags: []string{tagMetrics}, Summary: "Follow how busy the server is",
	}, []event{{"metrics", "what get-metrics answers", api.Metrics{}}}, func(_ context.Context, in *metricEventsInput) (runFunc, error) {
		return func(ctx context.Context, st *stream) error {
			tick := time.NewTicker(time.Duration(in.Every) * time.Second)
			defer tick.Stop()
			for {
				m, err := s.metrics(ctx)
				if err != nil {
					return err
				}
				if err := st.send("metrics", "", m); err != nil {
					return err
				}
				select {
				case <-tick.C:
				case <-ctx.Done():
					return ctx.Err()
				}
			}
		}, nil
	})
	add(s, huma.Operation{
		OperationID: "get-package-stats", Method: http.MethodGet, Path: "/v1/packages/{id}/stats", Tags: []string{tagMetrics},
		Errors: []int{http.StatusNotFound, http.StatusConflict}, Summary: "Read what a package uses",
	}, func(ctx context.Context, in *packageInput) (*body[api.PackageStats], error) {
		st, err := s.deps.Inspector.Stats(ctx, in.ID)
		return &body[api.PackageStats]{st}, err
	})
}

// wantsText reports whether an Accept header names text before JSON.
func wantsText(accept string) bool {
	for part := range strings.SplitSeq(accept, ",") {
		kind, _, _ := strings.Cut(strings.TrimSpace(part), ";")
		switch strings.ToLower(strings.TrimSpace(kind)) {
		case "application/openmetrics-text", "text/plain":
			return true
		case "application/json":
			return false
		}
	}
	return false
}

func (s *Server) metrics(ctx context.Context) (api.Metrics, error) {
	dir := s.opts.Dir
	if dir == "" {
		dir = "."
	}
	host, err := metrics.Read(dir)
	if err != nil {
		return api.Metrics{}, err
	}
	packages, err := s.deps.Inspector.AllStats(ctx)
	if err != nil {
		return api.Metrics{}, err
	}
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	return api.Metrics{
		Time: time.Now().UTC(),
		Host: api.HostMetrics{
			CPUs: host.CPUs, CPUSeconds: host.CPUSeconds, Load1: host.Load1, MemoryTotal: host.MemoryTotal, MemoryAvailable: host.MemoryAvailable,
			SwapTotal: host.SwapTotal, SwapFree: host.SwapFree, DiskTotal: host.DiskTotal, DiskAvailable: host.DiskAvailable, UptimeSeconds: host.Uptime,
		},
		Server: api.ServerMetrics{
			UptimeSeconds: time.Since(s.started).Seconds(), MemoryBytes: int64(mem.Sys - mem.HeapReleased), Goroutines: runtime.NumGoroutine(),
			Streams: s.streams.Load(), Uploads: s.uploads.Load(), Revision: uint64(s.deps.DB.Revision()),
		},
		Packages: packages,
	}, nil
}

// families are the same figures as OpenMetrics names them.
func families(m api.Metrics) []metrics.Family {
	one := func(name, unit, help string, v float64) metrics.Family {
		return metrics.Family{Name: "selfstead_" + name, Unit: unit, Help: help, Samples: []metrics.Sample{{Value: v}}}
	}
	cpu := metrics.Family{Name: "selfstead_host_cpu_seconds", Counter: true, Unit: "seconds", Help: "Processor time of the machine since its boot."}
	for _, mode := range slices.Sorted(maps.Keys(m.Host.CPUSeconds)) {
		cpu.Samples = append(cpu.Samples, metrics.Sample{Labels: [][2]string{{"mode", mode}}, Value: m.Host.CPUSeconds[mode]})
	}
	out := []metrics.Family{
		cpu,
		one("host_cpus", "", "Processors of the machine.", float64(m.Host.CPUs)),
		one("host_load1", "", "Tasks that run or wait, over one minute.", m.Host.Load1),
		one("host_memory_bytes", "bytes", "Memory of the machine.", float64(m.Host.MemoryTotal)),
		one("host_memory_available_bytes", "bytes", "Memory that programs can still take.", float64(m.Host.MemoryAvailable)),
		one("host_swap_bytes", "bytes", "Swap space of the machine.", float64(m.Host.SwapTotal)),
		one("host_swap_free_bytes", "bytes", "Swap space that is free.", float64(m.Host.SwapFree)),
		one("host_disk_bytes", "bytes", "Size of the file system with the server's folder.", float64(m.Host.DiskTotal)),
		one("host_disk_available_bytes", "bytes", "Room on it.", float64(m.Host.DiskAvailable)),
		one("server_memory_bytes", "bytes", "Memory that the server program holds.", float64(m.Server.MemoryBytes)),
		one("server_goroutines", "", "Goroutines of the server program.", float64(m.Server.Goroutines)),
		one("server_streams", "", "Open event streams.", float64(m.Server.Streams)),
		one("server_uploads", "", "Uploads under way.", float64(m.Server.Uploads)),
		one("server_uptime_seconds", "seconds", "Time since the server program started.", m.Server.UptimeSeconds),
	}
	per := func(name, unit, help string, counter bool, value func(api.PackageStats) *float64) {
		f := metrics.Family{Name: "selfstead_package_" + name, Counter: counter, Unit: unit, Help: help}
		for _, p := range m.Packages {
			if v := value(p); v != nil {
				f.Samples = append(f.Samples, metrics.Sample{Labels: [][2]string{{"package", p.ID}}, Value: *v})
			}
		}
		out = append(out, f)
	}
	number := func(n int64) *float64 { v := float64(n); return &v }
	maybe := func(n *int64) *float64 {
		if n == nil {
			return nil
		}
		return number(*n)
	}
	per("cpu_seconds", "seconds", "Processor time since the container started.", true, func(p api.PackageStats) *float64 { return &p.CPUSeconds })
	per("memory_bytes", "bytes", "Memory in use, page cache included.", false, func(p api.PackageStats) *float64 { return number(p.Memory) })
	per("memory_limit_bytes", "bytes", "Most memory that it may use.", false, func(p api.PackageStats) *float64 { return maybe(p.MemoryLimit) })
	per("memory_cache_bytes", "bytes", "Memory that the kernel can take back.", false, func(p api.PackageStats) *float64 { return number(p.MemoryCache) })
	per("swap_bytes", "bytes", "Swap space in use.", false, func(p api.PackageStats) *float64 { return maybe(p.Swap) })
	per("pids", "", "Tasks.", false, func(p api.PackageStats) *float64 { return number(p.PIDs) })
	per("oom_kills", "", "Processes that were ended for want of memory.", true, func(p api.PackageStats) *float64 { return number(p.OOMKills) })
	per("io_read_bytes", "bytes", "Bytes read from disks.", true, func(p api.PackageStats) *float64 { return number(p.IOReadBytes) })
	per("io_write_bytes", "bytes", "Bytes written to disks.", true, func(p api.PackageStats) *float64 { return number(p.IOWriteBytes) })
	return out
}
