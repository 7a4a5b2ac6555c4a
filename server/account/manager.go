package account

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/selfstead/selfstead/patchdb"
	"github.com/selfstead/selfstead/server/problem"
	"github.com/selfstead/selfstead/server/state"
)

// Codes of this room's problems.
const (
	CodeUnclaimed     = "unclaimed"       // 409: the server has no owner yet
	CodeClaimed       = "already-claimed" // 409
	CodeClaimCode     = "bad-claim-code"  // 403
	CodeWrongPassword = "wrong-password"  // 401
)

var (
	accountPointer  = state.PrivatePointer("account")
	sessionsPointer = state.PrivatePointer("sessions")
	claimedPointer  = patchdb.Join(state.ServerInfo, "claimed")
)

// Options tunes Open.
type Options struct {
	DB        *patchdb.DB
	ClaimFile string           // holds the claim code until the claim
	Now       func() time.Time // nil means time.Now
	Logger    *slog.Logger     // nil means silent
}

// Manager holds the account. It is safe to share.
type Manager struct {
	db        *patchdb.DB
	claimFile string
	now       func() time.Time
	log       *slog.Logger
	throttle  *throttle
	gate      gate

	write sync.Mutex // held while the password is being set

	mu       sync.Mutex
	hash     string // "" before the claim
	code     string // "" after it
	sessions map[string]*Session
}

// Open reads the account from the document. On a server that nobody has
// claimed it makes the claim code, unless the claim file holds one.
func Open(ctx context.Context, o Options) (*Manager, error) {
	m := &Manager{db: o.DB, claimFile: o.ClaimFile, now: o.Now, log: o.Logger, sessions: map[string]*Session{}}
	if m.now == nil {
		m.now = time.Now
	}
	if m.log == nil {
		m.log = slog.New(slog.DiscardHandler)
	}
	m.throttle = newThrottle(m.now)
	account, err := patchdb.Get[state.Account](o.DB, accountPointer)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("account: %w", err)
	}
	m.hash = account.PasswordHash
	if m.hash == "" {
		if m.code, err = openCode(m.claimFile); err != nil {
			return nil, err
		}
		return m, nil
	}
	if err := removeFile(m.claimFile); err != nil {
		return nil, err
	}
	return m, m.loadSessions(ctx)
}

// loadSessions drops the ones that nobody used for too long.
func (m *Manager) loadSessions(ctx context.Context) error {
	stored, err := patchdb.Get[map[string]state.Session](m.db, sessionsPointer)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("account: %w", err)
	}
	var idle []string
	for key, s := range stored {
		if m.now().Sub(s.LastActive) > IdleLimit {
			idle = append(idle, key)
			continue
		}
		m.sessions[key] = newSession(key, s, true)
	}
	return m.removeStored(ctx, idle)
}

// Claimed reports whether the server has an owner.
func (m *Manager) Claimed() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.hash != ""
}

// ClaimCode is the code that claims the server; "" once it is claimed.
func (m *Manager) ClaimCode() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.code
}

// Claim sets the first password of a server without an owner. The claim is
// durable when it returns and the claim file is gone. Of several claims at
// once one succeeds.
func (m *Manager) Claim(ctx context.Context, from netip.Addr, code, password string) error {
	m.write.Lock()
	defer m.write.Unlock()
	if m.Claimed() {
		return problem.New(409, CodeClaimed, "the server has an owner already")
	}
	if _, err := m.throttle.begin(from); err != nil {
		return err
	}
	defer m.throttle.end(from)
	if !sameCode(code, m.ClaimCode()) {
		if err := m.throttle.take(from); err != nil {
			return err
		}
		m.log.Warn("claim refused", "client", origin(from))
		return problem.New(403, CodeClaimCode, "the claim code is wrong; the server's console shows it").
			WithField("body.code", "not the claim code", nil)
	}
	if err := checkPassword("body.password", password); err != nil {
		return err
	}
	hash, err := m.hashed(ctx, password)
	if err != nil {
		return err
	}
	// The client may go away; a claim that has got this far is carried out.
	if _, err := m.db.Update(context.WithoutCancel(ctx), func(tx *patchdb.Tx) error {
		return errors.Join(
			tx.PutAll(accountPointer, state.Account{PasswordHash: hash}),
			tx.PutAll(claimedPointer, true))
	}); err != nil {
		return fmt.Errorf("account: claim: %w", err)
	}
	m.mu.Lock()
	m.hash, m.code = hash, ""
	m.mu.Unlock()
	m.log.Info("claimed", "client", origin(from))
	if err := removeFile(m.claimFile); err != nil {
		m.log.Error("claim code stays", "err", err) // harmless: it claims nothing any more
	}
	return nil
}

// SignIn makes a session for whoever knows the password. from is the client's
// address; an ephemeral session is not stored.
func (m *Manager) SignIn(ctx context.Context, from netip.Addr, password, name string, ephemeral bool) (*Session, string, error) {
	if !m.Claimed() {
		return nil, "", problem.New(409, CodeUnclaimed, "the server has no owner yet").
			WithFix("POST", "/v1/setup:claim", "claim it with the code from its console")
	}
	hash, err := m.check(ctx, from, "body.password", password)
	if err != nil {
		return nil, "", err
	}
	token, key := newToken()
	now := m.now().UTC()
	s := newSession(key, state.Session{ID: strings.ToLower(rand.Text()), LoggedIn: now, LastActive: now, UserAgent: clip(name, 200)}, !ephemeral)
	if s.stored {
		if _, err := m.db.Update(ctx, func(tx *patchdb.Tx) error {
			return tx.PutAll(patchdb.Join(sessionsPointer, key), s.Session)
		}); err != nil {
			return nil, "", fmt.Errorf("account: sign in: %w", err)
		}
	}
	m.mu.Lock()
	m.sessions[key] = s
	over := m.oldestLocked(len(m.sessions) - maxSessions)
	changed := m.hash != hash
	m.mu.Unlock()
	if changed { // the password was changed while it was being verified
		over = append(over, s)
	}
	if err := m.end(ctx, over); err != nil {
		return nil, "", err
	}
	if changed {
		return nil, "", m.wrong(from, "body.password")
	}
	m.log.Info("signed in", "client", origin(from), "session", s.ID)
	return s, token, nil
}

// check verifies the password under the throttle and returns the stored hash
// that it matches.
func (m *Manager) check(ctx context.Context, from netip.Addr, location, password string) (string, error) {
	known, err := m.throttle.begin(from)
	if err != nil {
		return "", err
	}
	defer m.throttle.end(from)
	m.mu.Lock()
	hash := m.hash
	m.mu.Unlock()
	if err := m.gate.enter(ctx, known); err != nil {
		return "", err
	}
	defer m.gate.leave()
	if err := m.throttle.take(from); err != nil {
		return "", err
	}
	if len(password) > maxPassword {
		return "", m.wrong(from, location)
	}
	ok, err := verifyPassword(hash, password)
	switch {
	case err != nil:
		return "", err
	case !ok:
		return "", m.wrong(from, location)
	}
	m.throttle.succeed(from)
	return hash, nil
}

func (m *Manager) wrong(from netip.Addr, location string) error {
	m.log.Warn("wrong password", "client", origin(from))
	return problem.New(401, CodeWrongPassword, "the password is wrong").WithField(location, "wrong password", nil)
}

func (m *Manager) hashed(ctx context.Context, password string) (string, error) {
	if err := m.gate.enter(ctx, true); err != nil {
		return "", err
	}
	defer m.gate.leave()
	return hashPassword(password), nil
}

// ChangePassword replaces the password and ends every session but keep, which
// may be "". old is not asked for when local is true: the caller has the
// server's own socket.
func (m *Manager) ChangePassword(ctx context.Context, from netip.Addr, local bool, old, password, keep string) error {
	m.write.Lock()
	defer m.write.Unlock()
	if !m.Claimed() {
		return problem.New(409, CodeUnclaimed, "the server has no owner yet")
	}
	if err := checkPassword("body.newPassword", password); err != nil {
		return err
	}
	if !local {
		if _, err := m.check(ctx, from, "body.oldPassword", old); err != nil {
			return err
		}
	}
	hash, err := m.hashed(ctx, password)
	if err != nil {
		return err
	}
	m.mu.Lock()
	var others []*Session
	for _, s := range m.sessions {
		if s.ID != keep {
			others = append(others, s)
		}
	}
	m.mu.Unlock()
	if _, err := m.db.Update(context.WithoutCancel(ctx), func(tx *patchdb.Tx) error {
		return errors.Join(tx.PutAll(accountPointer, state.Account{PasswordHash: hash}), removeKeys(tx, others))
	}); err != nil {
		return fmt.Errorf("account: change the password: %w", err)
	}
	m.mu.Lock()
	m.hash = hash
	m.mu.Unlock()
	m.forget(others)
	m.log.Info("password changed", "client", origin(from))
	return nil
}

// Authenticate returns the session of a token; false when there is none.
func (m *Manager) Authenticate(token string) (*Session, bool) {
	if token == "" || len(token) > 128 {
		return nil, false
	}
	key := tokenKey(token)
	now := m.now().UTC()
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.sessions[key]
	if s == nil || now.Sub(s.LastActive) > IdleLimit {
		return nil, false
	}
	s.LastActive = now
	if s.stored && now.Sub(s.saved) > saveActive {
		s.saved = now
		go m.save(s.key, now)
	}
	return s, true
}

// save stores when a session was last used.
func (m *Manager) save(key string, at time.Time) {
	pointer := patchdb.Join(sessionsPointer, key)
	if _, err := m.db.Update(context.Background(), func(tx *patchdb.Tx) error {
		if !tx.Exists(pointer) {
			return nil
		}
		return tx.PutAll(patchdb.Join(pointer, "lastActive"), at)
	}); err != nil {
		m.log.Warn("session's last activity is not stored", "err", err)
	}
}

// Sessions lists the sessions, the most recently used first.
func (m *Manager) Sessions() []state.Session {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make([]state.Session, 0, len(m.sessions))
	for _, s := range m.sessions {
		out = append(out, s.Session)
	}
	slices.SortFunc(out, func(a, b state.Session) int {
		return cmp.Or(b.LastActive.Compare(a.LastActive), cmp.Compare(a.ID, b.ID))
	})
	return out
}

// Revoke ends a session and its streams.
func (m *Manager) Revoke(ctx context.Context, id string) error {
	m.mu.Lock()
	var found []*Session
	for _, s := range m.sessions {
		if s.ID == id {
			found = append(found, s)
		}
	}
	m.mu.Unlock()
	if len(found) == 0 {
		return problem.NotFound("session", id)
	}
	return m.end(ctx, found)
}

// end removes sessions from the document, then from memory.
func (m *Manager) end(ctx context.Context, list []*Session) error {
	if len(list) == 0 {
		return nil
	}
	if _, err := m.db.Update(context.WithoutCancel(ctx), func(tx *patchdb.Tx) error { return removeKeys(tx, list) }); err != nil {
		return fmt.Errorf("account: end sessions: %w", err)
	}
	m.forget(list)
	return nil
}

func (m *Manager) forget(list []*Session) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range list {
		delete(m.sessions, s.key)
		s.cancel()
	}
}

// oldestLocked returns the n sessions that were used least recently.
func (m *Manager) oldestLocked(n int) []*Session {
	if n <= 0 {
		return nil
	}
	all := make([]*Session, 0, len(m.sessions))
	for _, s := range m.sessions {
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b *Session) int { return a.LastActive.Compare(b.LastActive) })
	return all[:n]
}

func (m *Manager) removeStored(ctx context.Context, keys []string) error {
	var list []*Session
	for _, k := range keys {
		list = append(list, newSession(k, state.Session{}, true))
	}
	return m.end(ctx, list)
}

func removeKeys(tx *patchdb.Tx, list []*Session) error {
	for _, s := range list {
		if p := patchdb.Join(sessionsPointer, s.key); tx.Exists(p) {
			if err := tx.Remove(p); err != nil {
				return err
			}
		}
	}
	return nil
}

// clip cuts s to at most n bytes and drops control characters.
func clip(s string, n int) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return -1
		}
		return r
	}, s)
	if len(s) > n {
		s = strings.ToValidUTF8(s[:n], "")
	}
	return s
}

// origin is where a request comes from, in a log's words.
func origin(from netip.Addr) string {
	if !from.IsValid() {
		return "local"
	}
	return from.String()
}
