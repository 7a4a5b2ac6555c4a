package system

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"

	"github.com/selfstead/selfstead/patchdb"
	"github.com/selfstead/selfstead/server/problem"
	"github.com/selfstead/selfstead/server/state"
)

// CodeNotManaged is the problem of a change to a machine that the server was
// not told to manage.
const CodeNotManaged = "not-managed"

// Options tunes New. DB is needed.
type Options struct {
	DB             *patchdb.DB
	ManageHost     bool   // host name and time zone of the machine may be changed
	AuthorizedKeys string // file that gets the SSH keys; "" means none
	Etc            string // folder of hostname, localtime and os-release; "" means /etc
	Zones          string // folder of the time zones; "" means /usr/share/zoneinfo
	Logger         *slog.Logger
}

// Manager is safe for concurrent use.
type Manager struct {
	o   Options
	log *slog.Logger
	mu  sync.Mutex // one change at a time
}

// New makes a Manager; nothing happens before Start.
func New(o Options) *Manager {
	if o.Etc == "" {
		o.Etc = "/etc"
	}
	if o.Zones == "" {
		o.Zones = "/usr/share/zoneinfo"
	}
	m := &Manager{o: o, log: o.Logger}
	if m.log == nil {
		m.log = slog.New(slog.DiscardHandler)
	}
	return m
}

// Start writes the file of SSH keys, should it lack some.
func (m *Manager) Start(context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.writeKeysLocked()
}

func (m *Manager) managed(what string) error {
	if m.o.ManageHost {
		return nil
	}
	return problem.New(http.StatusConflict, CodeNotManaged, "this server does not manage its machine's "+what+"; stead serve --manage-host lets it")
}

// label is one label of a DNS name (RFC 1123 section 2.1).
var label = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// Names are how the server is called.
type Names struct {
	ID, Name, Hostname string
}

// Names reads them. Without a name of its own the server is called as its
// machine.
func (m *Manager) Names() (Names, error) {
	info, err := patchdb.Get[state.Server](m.o.DB, state.ServerInfo)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Names{}, fmt.Errorf("system: %w", err)
	}
	n := Names{ID: info.ID, Name: info.Name, Hostname: info.Hostname}
	if n.Name == "" {
		n.Name = n.Hostname
	}
	return n, nil
}

// SetNames changes what is not nil: the name for people, and the host name of
// the machine.
func (m *Manager) SetNames(ctx context.Context, name, hostname *string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	was, err := m.Names()
	if err != nil {
		return err
	}
	if hostname != nil && *hostname != was.Hostname {
		if !label.MatchString(*hostname) {
			return problem.New(http.StatusUnprocessableEntity, problem.CodeInvalid, "a host name has lower case letters, digits and hyphens inside, 63 at most").
				WithField("body.hostname", "not a host name", *hostname)
		}
		if err := m.managed("host name"); err != nil {
			return err
		}
		if err := replace(filepath.Join(m.o.Etc, "hostname"), []byte(*hostname+"\n"), 0o644); err != nil {
			return fmt.Errorf("system: host name: %w", err)
		}
		if err := setHostname(*hostname); err != nil {
			return fmt.Errorf("system: host name: %w", err)
		}
	}
	_, err = m.o.DB.Update(ctx, func(tx *patchdb.Tx) error {
		for at, value := range map[string]*string{"name": name, "hostname": hostname} {
			if value == nil {
				continue
			}
			if err := tx.PutAll(patchdb.Join(state.ServerInfo, at), *value); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("system: %w", err)
	}
	return nil
}

// Timezone is the machine's, such as "Europe/Vienna"; "UTC" when it has none.
func (m *Manager) Timezone() string {
	target, err := os.Readlink(filepath.Join(m.o.Etc, "localtime"))
	if err == nil {
		if _, name, ok := strings.Cut(target, "/zoneinfo/"); ok {
			return name
		}
	}
	if text, err := os.ReadFile(filepath.Join(m.o.Etc, "timezone")); err == nil {
		if name := strings.TrimSpace(string(text)); name != "" {
			return name
		}
	}
	return "UTC"
}

var zone = regexp.MustCompile(`^[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*$`)

// SetTimezone sets it for the whole machine; programs that run keep theirs.
func (m *Manager) SetTimezone(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	unknown := problem.New(http.StatusUnprocessableEntity, problem.CodeInvalid, "there is no such time zone").WithField("body.timezone", "not known here", name)
	if !zone.MatchString(name) {
		return unknown
	}
	file := filepath.Join(m.o.Zones, name)
	if text, err := os.ReadFile(file); err != nil || !strings.HasPrefix(string(text), "TZif") { // RFC 9636 section 3.1
		return unknown
	}
	if err := m.managed("time zone"); err != nil {
		return err
	}
	link := filepath.Join(m.o.Etc, "localtime")
	if err := os.Symlink(file, link+".new"); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("system: time zone: %w", err)
	} else if err != nil { // left by a server that died here
		if err := errors.Join(os.Remove(link+".new"), os.Symlink(file, link+".new")); err != nil {
			return fmt.Errorf("system: time zone: %w", err)
		}
	}
	if err := os.Rename(link+".new", link); err != nil {
		return fmt.Errorf("system: time zone: %w", err)
	}
	if err := replace(filepath.Join(m.o.Etc, "timezone"), []byte(name+"\n"), 0o644); err != nil {
		return fmt.Errorf("system: time zone: %w", err)
	}
	return nil
}

// replace writes a file in one step.
func replace(path string, text []byte, mode fs.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(text)
	if err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
