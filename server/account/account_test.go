package account_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/selfstead/selfstead/patchdb"
	"github.com/selfstead/selfstead/server/account"
	"github.com/selfstead/selfstead/server/problem"
	"github.com/selfstead/selfstead/server/state"
)

const password = "correct horse"

var home = netip.MustParseAddr("192.0.2.1")

type fixture struct {
	*account.Manager
	db   *patchdb.DB
	dir  string
	file string
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	dir := t.TempDir()
	db, err := patchdb.Open(filepath.Join(dir, "state.db"), patchdb.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, db.Close()) })
	_, err = db.Put(t.Context(), "", state.New())
	require.NoError(t, err)
	f := &fixture{db: db, dir: dir, file: filepath.Join(dir, "claim-code")}
	f.reopen(t)
	return f
}

// reopen makes a manager over the same document, as after a restart.
func (f *fixture) reopen(t *testing.T) {
	t.Helper()
	var err error
	f.Manager, err = account.Open(t.Context(), account.Options{DB: f.db, ClaimFile: f.file})
	require.NoError(t, err)
}

func claimed(t *testing.T) *fixture {
	t.Helper()
	f := newFixture(t)
	require.NoError(t, f.Claim(t.Context(), home, f.ClaimCode(), password))
	return f
}

func assertCode(t *testing.T, err error, code string) {
	t.Helper()
	assert.ErrorIs(t, err, problem.New(0, code, ""))
}

func TestClaim(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	code := f.ClaimCode()
	assert.Regexp(t, `^([A-Z2-7]{4}-){3}[A-Z2-7]{4}$`, code)
	info, err := os.Stat(f.file)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), info.Mode())
	f.reopen(t)
	assert.Equal(t, code, f.ClaimCode(), "the code survives a restart")

	_, _, err = f.SignIn(t.Context(), home, password, "", false)
	assertCode(t, err, account.CodeUnclaimed)
	assertCode(t, f.Claim(t.Context(), home, "AAAA-AAAA-AAAA-AAAA", password), account.CodeClaimCode)
	err = f.Claim(t.Context(), home, code, "short")
	assertCode(t, err, problem.CodeInvalid)
	assert.Equal(t, "body.password", problem.From(err).Errors[0].Location)

	require.NoError(t, f.Claim(t.Context(), home, " "+strings.ToLower(strings.ReplaceAll(code, "-", ""))+"\n", password), "people type codes as they like")
	assert.NoFileExists(t, f.file)
	assert.Empty(t, f.ClaimCode())
	shown, err := patchdb.Get[bool](f.db, "/public/serverInfo/claimed")
	require.NoError(t, err)
	assert.True(t, shown)
	assertCode(t, f.Claim(t.Context(), home, code, password), account.CodeClaimed)

	f.reopen(t)
	assert.True(t, f.Claimed())
	_, token, err := f.SignIn(t.Context(), home, password, "", false)
	require.NoError(t, err)
	assert.Len(t, token, 26)
}

func TestAClaimFileLeftBehindIsRemoved(t *testing.T) {
	t.Parallel()
	f := claimed(t)
	require.NoError(t, os.WriteFile(f.file, []byte("AAAA-AAAA-AAAA-AAAA\n"), 0o600))
	f.reopen(t)
	assert.NoFileExists(t, f.file)
}

func TestOneOfManyClaimsWins(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	code := f.ClaimCode()
	var wg sync.WaitGroup
	errs := make([]error, 8)
	for i := range errs {
		from := netip.AddrFrom4([4]byte{198, 51, 100, byte(i)})
		wg.Go(func() { errs[i] = f.Claim(t.Context(), from, code, password) })
	}
	wg.Wait()
	won := 0
	for _, err := range errs {
		if err == nil {
			won++
		} else {
			assertCode(t, err, account.CodeClaimed)
		}
	}
	assert.Equal(t, 1, won)
}

func TestAClaimIsCarriedOutWhenTheClientGoesAway(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := f.Claim(ctx, home, f.ClaimCode(), password)
	f.reopen(t)
	assert.Equal(t, err == nil, f.Claimed(), "either done or not, and said so")
}

func TestGuessingTheClaimCodeIsThrottled(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	var last error
	for range 6 {
		last = f.Claim(t.Context(), home, "AAAA-AAAA-AAAA-AAAA", password)
	}
	assertCode(t, last, account.CodeThrottled)
	assert.NotEmpty(t, problem.From(last).GetHeaders().Get("Retry-After"))
	assert.NoError(t, f.Claim(t.Context(), netip.MustParseAddr("192.0.2.2"), f.ClaimCode(), password), "others are not held up")
}

func TestSessions(t *testing.T) {
	t.Parallel()
	f := claimed(t)
	s, token, err := f.SignIn(t.Context(), home, password, "laptop\x00\n"+strings.Repeat("é", 200), false)
	require.NoError(t, err)
	_, other, err := f.SignIn(t.Context(), home, password, "kiosk", true)
	require.NoError(t, err)

	got, ok := f.Authenticate(token)
	require.True(t, ok)
	assert.Same(t, s, got)
	for _, bad := range []string{"", "x", strings.ToUpper(token), token + "a", strings.Repeat("a", 1<<16)} {
		_, ok := f.Authenticate(bad)
		assert.False(t, ok, "%.40q", bad)
	}
	assert.Len(t, f.Sessions(), 2)
	assert.LessOrEqual(t, len(s.UserAgent), 200)
	assert.NotContains(t, s.UserAgent, "\n")

	private, err := f.db.Dump(state.Private)
	require.NoError(t, err)
	assert.NotContains(t, string(private.Value), token, "only its hash is stored")
	assert.NotContains(t, string(private.Value), password)
	public, err := f.db.Dump(state.Public)
	require.NoError(t, err)
	assert.NotContains(t, string(public.Value), "argon2")
	assert.NotContains(t, string(public.Value), s.ID)

	f.reopen(t)
	_, ok = f.Authenticate(token)
	assert.True(t, ok, "a session survives a restart")
	_, ok = f.Authenticate(other)
	assert.False(t, ok, "an ephemeral one does not")

	s, _ = f.Authenticate(token)
	require.NoError(t, f.Revoke(t.Context(), s.ID))
	<-s.Context().Done()
	_, ok = f.Authenticate(token)
	assert.False(t, ok)
	assertCode(t, f.Revoke(t.Context(), s.ID), problem.CodeNotFound)
	f.reopen(t)
	_, ok = f.Authenticate(token)
	assert.False(t, ok)
}

func TestIdleSessionsEnd(t *testing.T) {
	t.Parallel()
	f := claimed(t)
	now := time.Now()
	var mu sync.Mutex
	clock := func() time.Time { mu.Lock(); defer mu.Unlock(); return now }
	open := func() {
		var err error
		f.Manager, err = account.Open(t.Context(), account.Options{DB: f.db, ClaimFile: f.file, Now: clock})
		require.NoError(t, err)
	}
	open()
	_, token, err := f.SignIn(t.Context(), home, password, "", false)
	require.NoError(t, err)
	mu.Lock()
	now = now.Add(account.IdleLimit + time.Second)
	mu.Unlock()
	_, ok := f.Authenticate(token)
	assert.False(t, ok)
	open()
	stored, err := patchdb.Get[map[string]state.Session](f.db, "/private/sessions")
	require.NoError(t, err)
	assert.Empty(t, stored, "they leave the document at the next start")
}

func TestChangePassword(t *testing.T) {
	t.Parallel()
	f := claimed(t)
	mine, token, err := f.SignIn(t.Context(), home, password, "", false)
	require.NoError(t, err)
	theirs, stolen, err := f.SignIn(t.Context(), home, password, "", false)
	require.NoError(t, err)

	assertCode(t, f.ChangePassword(t.Context(), home, false, "wrong one", "new password", mine.ID), account.CodeWrongPassword)
	assertCode(t, f.ChangePassword(t.Context(), home, false, password, "short", mine.ID), problem.CodeInvalid)
	require.NoError(t, f.ChangePassword(t.Context(), home, false, password, "new password", mine.ID))
	<-theirs.Context().Done()
	_, ok := f.Authenticate(stolen)
	assert.False(t, ok)
	_, ok = f.Authenticate(token)
	assert.True(t, ok, "the caller's own session stays")
	_, _, err = f.SignIn(t.Context(), home, password, "", false)
	assertCode(t, err, account.CodeWrongPassword)
	require.NoError(t, f.ChangePassword(t.Context(), netip.Addr{}, true, "", "reset by root", ""), "the server's own socket needs no old one")
	_, ok = f.Authenticate(token)
	assert.False(t, ok)
	_, _, err = f.SignIn(t.Context(), home, "reset by root", "", false)
	assert.NoError(t, err)
}

// TestSignInsRaceAPasswordChange: whoever signed in with the old password has
// no session once the change has returned.
func TestSignInsRaceAPasswordChange(t *testing.T) {
	t.Parallel()
	f := claimed(t)
	_, _, err := f.SignIn(t.Context(), home, password, "", false) // makes home known
	require.NoError(t, err)
	var wg sync.WaitGroup
	tokens := make(chan string, 8)
	for range 4 {
		wg.Go(func() {
			if _, token, err := f.SignIn(t.Context(), home, password, "", false); err == nil {
				tokens <- token
			}
		})
	}
	wg.Go(func() { assert.NoError(t, f.ChangePassword(t.Context(), home, true, "", "new password", "")) })
	wg.Wait()
	close(tokens)
	for token := range tokens {
		_, ok := f.Authenticate(token)
		assert.False(t, ok)
	}
	stored, err := patchdb.Get[map[string]json.RawMessage](f.db, "/private/sessions")
	require.NoError(t, err)
	assert.Empty(t, stored)
}

func TestWrongPasswordsAreThrottledByAddress(t *testing.T) {
	t.Parallel()
	f := claimed(t)
	thief := netip.MustParseAddr("2001:db8::1")
	var last error
	for range 6 {
		_, _, last = f.SignIn(t.Context(), thief, "guess guess", "", false)
	}
	assertCode(t, last, account.CodeThrottled)
	_, _, err := f.SignIn(t.Context(), netip.MustParseAddr("2001:db8::2"), password, "", false)
	assertCode(t, err, account.CodeThrottled) // the same /64
	_, _, err = f.SignIn(t.Context(), home, password, "", false)
	assert.NoError(t, err)
}

// TestAFloodOfStrangersDoesNotLockTheOwnerOut has hundreds of addresses guess
// at once while the owner signs in from an address that has done so before.
func TestAFloodOfStrangersDoesNotLockTheOwnerOut(t *testing.T) {
	t.Parallel()
	f := claimed(t)
	_, _, err := f.SignIn(t.Context(), home, password, "", false)
	require.NoError(t, err)
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for i := range 200 {
		from := netip.AddrFrom4([4]byte{198, 51, byte(i >> 8), byte(i)})
		wg.Go(func() {
			_, _, err := f.SignIn(ctx, from, "guess guess", "", false)
			if err == nil || !errors.Is(err, context.Canceled) && problem.From(err).Status >= 500 {
				t.Errorf("guess: %v", err)
			}
		})
	}
	for range 3 {
		_, _, err := f.SignIn(t.Context(), home, password, "", false)
		require.NoError(t, err)
	}
	stop()
	wg.Wait()
	_, _, err = f.SignIn(t.Context(), home, password, "", false)
	require.NoError(t, err, "cancelled waiters leave the gate open")
}
