package notification

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"time"

	"github.com/selfstead/selfstead/patchdb"
	"github.com/selfstead/selfstead/server/problem"
	"github.com/selfstead/selfstead/server/state"
)

// Max is how many notifications are kept; the oldest go first.
const Max = 500

// Levels of notifications, the least urgent first.
var Levels = []string{"success", "info", "warning", "error"}

var (
	listPointer = state.PrivatePointer("notifications")
	lastPointer = state.PrivatePointer("lastNotification")
)

func load(tx *patchdb.Tx) ([]state.Notification, error) {
	list, err := patchdb.TxGet[[]state.Notification](tx, listPointer)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return list, err
}

// save stores the list and the number of those that were not seen.
func save(tx *patchdb.Tx, list []state.Notification) error {
	unread := 0
	for _, n := range list {
		if !n.Seen {
			unread++
		}
	}
	if err := tx.PutAll(listPointer, list); err != nil {
		return err
	}
	return tx.PutAll(patchdb.Join(state.ServerInfo, "unreadNotificationCount"), unread)
}

// Add adds a notification inside its caller's transaction, gives it its id and
// time, and returns it.
func Add(tx *patchdb.Tx, n state.Notification) (state.Notification, error) {
	list, err := load(tx)
	if err != nil {
		return n, err
	}
	last, err := patchdb.TxGet[uint32](tx, lastPointer)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return n, err
	}
	for _, old := range list { // documents of before lastNotification
		last = max(last, old.ID)
	}
	n.ID, n.CreatedAt = last+1, time.Now().UTC()
	if err := tx.PutAll(lastPointer, n.ID); err != nil {
		return n, err
	}
	list = append(list, n)
	return n, save(tx, list[max(0, len(list)-Max):])
}

// Query chooses from the list.
type Query struct {
	Before  uint32 // ids below this one; 0 means all
	Limit   int    // most to return; 0 means all
	Unread  bool   // only those not seen
	Level   string // at least as urgent; "" means all
	Package string // only of this package; "" means all
}

func (q Query) match(n state.Notification) bool {
	return (q.Before == 0 || n.ID < q.Before) && (!q.Unread || !n.Seen) && urgent(n.Level, q.Level) &&
		(q.Package == "" || n.PackageID != nil && *n.PackageID == q.Package)
}

// urgent reports whether a level is at least as urgent as another.
func urgent(level, least string) bool {
	return slices.Index(Levels, level) >= slices.Index(Levels, least)
}

// List returns what q chooses, the newest first; more says that Limit cut it.
func (m *Manager) List(q Query) (list []state.Notification, more bool, err error) {
	err = m.o.DB.View(func(tx *patchdb.Tx) error {
		all, err := load(tx)
		for _, n := range slices.Backward(all) {
			if !q.match(n) {
				continue
			}
			if q.Limit > 0 && len(list) == q.Limit {
				more = true
				break
			}
			list = append(list, n)
		}
		return err
	})
	return list, more, err
}

// Get returns one.
func (m *Manager) Get(id uint32) (state.Notification, error) {
	list, _, err := m.List(Query{})
	if err != nil {
		return state.Notification{}, err
	}
	i := slices.IndexFunc(list, func(n state.Notification) bool { return n.ID == id })
	if i < 0 {
		return state.Notification{}, notFound(id)
	}
	return list[i], nil
}

func notFound(id uint32) error {
	return problem.NotFound("notification", strconv.FormatUint(uint64(id), 10))
}

// Create adds a notification of the owner's own.
func (m *Manager) Create(ctx context.Context, n state.Notification) (state.Notification, error) {
	_, err := m.o.DB.Update(ctx, func(tx *patchdb.Tx) error {
		if n.PackageID != nil && !tx.Exists(state.PackagePointer(*n.PackageID)) {
			return problem.NotFound("package", *n.PackageID).WithField("body.package", "not installed", *n.PackageID)
		}
		var err error
		n, err = Add(tx, n)
		return err
	})
	return n, err
}

// Selection names notifications: those in IDs, and all up to Through.
type Selection struct {
	IDs     []uint32
	Through uint32
}

func (s Selection) match(id uint32) bool { return id <= s.Through || slices.Contains(s.IDs, id) }

// Mark says of notifications whether the owner has seen them, and returns how
// many changed. An id that is not there fails the call, which changes nothing
// then.
func (m *Manager) Mark(ctx context.Context, s Selection, seen bool) (int, error) {
	changed := 0
	err := m.update(ctx, s, func(list []state.Notification) []state.Notification {
		changed = 0
		for i, n := range list {
			if s.match(n.ID) && n.Seen != seen {
				list[i].Seen = seen
				changed++
			}
		}
		return list
	}, &changed)
	return changed, err
}

// Delete removes notifications and returns how many.
func (m *Manager) Delete(ctx context.Context, s Selection) (int, error) {
	gone := 0
	err := m.update(ctx, s, func(list []state.Notification) []state.Notification {
		kept := slices.DeleteFunc(slices.Clone(list), func(n state.Notification) bool { return s.match(n.ID) })
		gone = len(list) - len(kept)
		return kept
	}, &gone)
	return gone, err
}

func (m *Manager) update(ctx context.Context, s Selection, fn func([]state.Notification) []state.Notification, changed *int) error {
	_, err := m.o.DB.Update(ctx, func(tx *patchdb.Tx) error {
		list, err := load(tx)
		if err != nil {
			return err
		}
		for _, id := range s.IDs {
			if !slices.ContainsFunc(list, func(n state.Notification) bool { return n.ID == id }) {
				return notFound(id)
			}
		}
		if list = fn(list); *changed == 0 {
			return nil
		}
		return save(tx, list)
	})
	if err != nil && problem.From(err).Code == problem.CodeInternal {
		return fmt.Errorf("notification: %w", err)
	}
	return err
}
