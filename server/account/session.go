package account

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"time"

	"github.com/selfstead/selfstead/server/state"
)

// IdleLimit is how long a session lasts that nobody uses.
const IdleLimit = 30 * 24 * time.Hour

// saveActive is how old the stored last activity of a session may grow: it
// saves a disk write at each request.
const saveActive = time.Hour

// maxSessions bounds the sessions; the one unused for longest makes room.
const maxSessions = 200

// Session is one sign-in.
type Session struct {
	state.Session
	key    string // hex SHA-256 of the token
	stored bool   // false: it ends with the process
	saved  time.Time
	ctx    context.Context
	cancel context.CancelFunc
}

// Context is done once the session has ended: it was revoked, signed out, or
// the password was changed. Streams end with it.
func (s *Session) Context() context.Context { return s.ctx }

func newSession(key string, s state.Session, stored bool) *Session {
	out := &Session{Session: s, key: key, stored: stored, saved: s.LastActive}
	out.ctx, out.cancel = context.WithCancel(context.Background())
	return out
}

// newToken returns a token and the key it is stored under.
func newToken() (token, key string) {
	token = strings.ToLower(rand.Text())
	return token, tokenKey(token)
}

func tokenKey(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}
