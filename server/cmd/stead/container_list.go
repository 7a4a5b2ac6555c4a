package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/selfstead/selfstead/lxcrt"
	"github.com/selfstead/selfstead/lxcrt/logs"
)

// listed is a container as `list --json` prints it.
type listed struct {
	Name    string      `json:"name"`
	State   lxcrt.State `json:"state"`
	Exit    string      `json:"exit,omitempty"` // how the last run ended
	Image   string      `json:"image"`
	Command []string    `json:"command"`
	Created time.Time   `json:"created"`
	PID     int         `json:"pid,omitempty"`
	Address string      `json:"address,omitempty"`
}

func (c *containers) listCommand() *cobra.Command {
	return &cobra.Command{
		Use: "list", Aliases: []string{"ls", "ps"}, Short: "Show all containers", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			all := []listed{}
			if len(c.names()) > 0 {
				rt, unlock, err := c.open(cmd.Context())
				if err != nil {
					return err
				}
				defer unlock()
				defer rt.Close()
				for _, n := range c.names() {
					ct, err := rt.Load(cmd.Context(), n)
					if errors.Is(err, lxcrt.ErrNotFound) {
						continue
					}
					if err != nil {
						return err
					}
					all = append(all, c.describe(cmd.Context(), ct))
				}
			}
			if c.json {
				return printJSON(cmd.OutOrStdout(), all)
			}
			rows := [][]string{{"name", "state", "image", "command", "address", "created"}}
			for _, l := range all {
				state := string(l.State)
				if l.Exit != "" {
					state += " (" + l.Exit + ")"
				}
				rows = append(rows, []string{l.Name, state, l.Image, strings.Join(l.Command, " "), l.Address, ago(l.Created)})
			}
			table(cmd.OutOrStdout(), rows...)
			return nil
		},
	}
}

func (c *containers) describe(ctx context.Context, ct *lxcrt.Container) listed {
	n := c.note(ct.Name())
	l := listed{Name: ct.Name(), State: ct.State(), Image: n.Image, Command: n.Command, Created: n.Created, PID: ct.PID()}
	if a := ct.Spec().Addr4; a.IsValid() {
		l.Address = a.String()
	}
	if l.State == lxcrt.Stopped {
		if st, err := ct.Wait(ctx); err == nil {
			l.Exit = st.String()
		}
	}
	return l
}

// usage is what `stats --json` prints of a container.
type usage struct {
	Name        string  `json:"name"`
	CPUPercent  float64 `json:"cpuPercent"` // of one CPU, since the reading before
	CPUSeconds  float64 `json:"cpuSeconds"`
	Memory      int64   `json:"memory"`
	MemoryLimit int64   `json:"memoryLimit"`
	MemoryCache int64   `json:"memoryCache"`
	PIDs        int64   `json:"pids"`
	PIDsLimit   int64   `json:"pidsLimit"`
	OOMKills    int64   `json:"oomKills"`
}

func (c *containers) statsCommand() *cobra.Command {
	var once bool
	var every time.Duration
	cmd := &cobra.Command{
		Use: "stats [NAME...]", Short: "Show what running containers use", ValidArgsFunction: c.complete(true),
		Long: `Show what running containers use. On a terminal the table is refreshed until
interrupted; elsewhere, and with --once, it is printed once.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			rt, unlock, err := c.open(cmd.Context())
			if err != nil {
				return err
			}
			unlock()
			defer c.close(rt)
			f, ok := cmd.OutOrStdout().(*os.File)
			live := ok && term.IsTerminal(int(f.Fd())) && !once && !c.json
			return c.watch(cmd, rt, args, live, max(every, 100*time.Millisecond))
		},
	}
	cmd.Flags().BoolVar(&once, "once", false, "print once on a terminal too")
	cmd.Flags().DurationVar(&every, "interval", time.Second, "time between two readings")
	return cmd
}

// watch reads twice, since shares of a CPU are between two readings, and on when
// live.
func (c *containers) watch(cmd *cobra.Command, rt *lxcrt.Runtime, names []string, live bool, every time.Duration) error {
	ctx, w := cmd.Context(), cmd.OutOrStdout()
	tick := time.NewTicker(every)
	defer tick.Stop()
	before, at := map[string]time.Duration{}, time.Now()
	for round := 0; ; round++ {
		all := []usage{}
		now := time.Now()
		wanted := names
		if len(names) == 0 {
			wanted = c.names()
		}
		for _, n := range wanted {
			u, cpu, err := c.read(ctx, rt, n)
			if err != nil {
				if len(names) == 0 && (errors.Is(err, lxcrt.ErrNotRunning) || errors.Is(err, lxcrt.ErrNotFound)) {
					continue
				}
				return c.explain(n, err)
			}
			if last, ok := before[n]; ok && now.After(at) {
				u.CPUPercent = 100 * float64(cpu-last) / float64(now.Sub(at))
			}
			before[n] = cpu
			all = append(all, u)
		}
		at = now
		if round > 0 {
			if c.json {
				return printJSON(w, all)
			}
			if live {
				fmt.Fprint(w, "\x1b[H\x1b[2J") // top left, everything cleared
			}
			drawUsage(w, all)
			if !live {
				return nil
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			if live {
				return nil // it has no other end
			}
			return ctx.Err()
		}
	}
}

func (c *containers) read(ctx context.Context, rt *lxcrt.Runtime, name string) (usage, time.Duration, error) {
	ct, err := rt.Load(ctx, name)
	if err != nil {
		return usage{}, 0, err
	}
	s, err := ct.Stats(ctx)
	if err != nil {
		return usage{}, 0, err
	}
	return usage{Name: name, CPUSeconds: s.CPU.Seconds(), Memory: s.Memory, MemoryLimit: s.MemoryLimit, MemoryCache: s.MemoryCache,
		PIDs: s.PIDs, PIDsLimit: s.PIDsLimit, OOMKills: s.OOMKills}, s.CPU, nil
}

func drawUsage(w io.Writer, all []usage) {
	rows := [][]string{{"name", "cpu", "cpu time", "memory", "limit", "tasks"}}
	slices.SortFunc(all, func(a, b usage) int { return strings.Compare(a.Name, b.Name) })
	for _, u := range all {
		tasks := fmt.Sprint(u.PIDs)
		if u.PIDsLimit >= 0 {
			tasks += fmt.Sprintf(" of %d", u.PIDsLimit)
		}
		rows = append(rows, []string{u.Name, fmt.Sprintf("%.1f%%", u.CPUPercent), fmt.Sprintf("%.1f s", u.CPUSeconds), mebibytes(u.Memory), mebibytes(u.MemoryLimit), tasks})
	}
	table(w, rows...)
}

func mebibytes(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }

func (c *containers) logsCommand() *cobra.Command {
	var follow, times bool
	var lines int
	cmd := &cobra.Command{
		Use: "logs NAME", Short: "Show what a container has printed", Args: cobra.ExactArgs(1), ValidArgsFunction: c.complete(false),
		RunE: func(cmd *cobra.Command, args []string) error {
			name := args[0]
			if !slices.Contains(c.names(), name) {
				if os.Geteuid() != 0 {
					return errors.New("containers need root; run it as root, or with sudo")
				}
				return c.explain(name, os.ErrNotExist)
			}
			dir, err := filepath.Abs(c.dir)
			if err != nil {
				return err
			}
			log := logs.Open(filepath.Join(dir, name, "log"), lxcrt.LogName)
			cursor := ""
			show := func(e logs.Entry) error {
				cursor = e.Cursor
				return c.showLine(cmd, e, times)
			}
			page := logs.Page{StartCursor: "0.0"}
			if lines >= 0 {
				if page, err = log.Read(logs.Query{Limit: max(lines, 1)}); err != nil {
					return err
				}
			}
			for _, e := range page.Entries {
				cursor = e.Cursor
				if lines > 0 {
					if err := show(e); err != nil {
						return err
					}
				}
			}
			rest := func() error {
				for {
					if cursor == "" {
						cursor = "0.0"
					}
					page, err := log.Read(logs.Query{Cursor: cursor, Limit: logs.MaxLimit})
					if err != nil || len(page.Entries) == 0 {
						return err
					}
					for _, e := range page.Entries {
						if err := show(e); err != nil {
							return err
						}
					}
				}
			}
			if lines < 0 {
				if err := rest(); err != nil {
					return err
				}
			}
			if !follow {
				return nil
			}
			return c.follow(cmd.Context(), name, func(ctx context.Context) error {
				if cursor == "" {
					cursor = "0.0"
				}
				return log.Follow(ctx, cursor, 0, show)
			}, rest)
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on until the container ends")
	cmd.Flags().BoolVarP(&times, "timestamps", "t", false, "show the time of each line")
	cmd.Flags().IntVarP(&lines, "lines", "n", -1, "only so many lines of the past, at most 1000")
	return cmd
}

// follow follows a log until the container has ended, and shows the rest then.
func (c *containers) follow(ctx context.Context, name string, follow func(context.Context) error, rest func() error) error {
	rt, unlock, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer c.close(rt)
	ct, err := rt.Load(ctx, name)
	unlock()
	if err != nil {
		return c.explain(name, err)
	}
	following, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- follow(following) }()
	_, err = ct.Wait(ctx)
	stop()
	if ferr := <-done; err == nil && ferr != nil && !errors.Is(ferr, context.Canceled) {
		err = ferr
	}
	if err != nil {
		return err
	}
	return rest()
}

func (c *containers) showLine(cmd *cobra.Command, e logs.Entry, times bool) error {
	if c.json {
		return json.NewEncoder(cmd.OutOrStdout()).Encode(e)
	}
	w, text := cmd.OutOrStdout(), e.Message
	if e.Stream == logs.Stderr {
		w = cmd.ErrOrStderr()
	}
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		text = plain(text) // what it printed for a log is not to steer this terminal
	}
	if times {
		text = e.Time.Local().Format("2006-01-02 15:04:05.000") + " " + text
	}
	_, err := fmt.Fprintln(w, text)
	return err
}
