package notification_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"mime"
	"net"
	"net/http"
	"net/http/httptest"
	"net/mail"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/selfstead/selfstead/patchdb"
	"github.com/selfstead/selfstead/server/notification"
	"github.com/selfstead/selfstead/server/problem"
	"github.com/selfstead/selfstead/server/state"
)

func open(t *testing.T, path string) *patchdb.DB {
	t.Helper()
	db, err := patchdb.Open(path, patchdb.Options{})
	require.NoError(t, err)
	if db.Revision() == 0 {
		doc := state.New()
		doc.Public.ServerInfo = state.Server{ID: "srv", Hostname: "stead"}
		_, err = db.Put(t.Context(), "", doc)
		require.NoError(t, err)
	}
	return db
}

func newManager(t *testing.T, o notification.Options) *notification.Manager {
	t.Helper()
	if o.DB == nil {
		o.DB = open(t, filepath.Join(t.TempDir(), "state.db"))
		t.Cleanup(func() { o.DB.Close() })
	}
	if o.Pause == 0 {
		o.Pause = time.Millisecond
	}
	m := notification.New(o)
	require.NoError(t, m.Start(t.Context()))
	t.Cleanup(func() { m.Close() })
	return m
}

func say(t *testing.T, m *notification.Manager, level, title string) state.Notification {
	t.Helper()
	n, err := m.Create(t.Context(), state.Notification{Level: level, Title: title, Message: "text"})
	require.NoError(t, err)
	return n
}

func ids(list []state.Notification) []uint32 {
	out := []uint32{}
	for _, n := range list {
		out = append(out, n.ID)
	}
	return out
}

func TestList(t *testing.T) {
	t.Parallel()
	db := open(t, filepath.Join(t.TempDir(), "state.db"))
	defer db.Close()
	m := newManager(t, notification.Options{DB: db})
	for i, level := range []string{"success", "info", "warning", "error", "error"} {
		assert.EqualValues(t, i+1, say(t, m, level, level).ID)
	}
	for _, tt := range []struct {
		q    notification.Query
		want []uint32
		more bool
	}{
		{notification.Query{}, []uint32{5, 4, 3, 2, 1}, false},
		{notification.Query{Limit: 2}, []uint32{5, 4}, true},
		{notification.Query{Limit: 2, Before: 3}, []uint32{2, 1}, false},
		{notification.Query{Level: "warning"}, []uint32{5, 4, 3}, false},
		{notification.Query{Package: "none"}, []uint32{}, false},
	} {
		list, more, err := m.List(tt.q)
		require.NoError(t, err)
		assert.Equal(t, tt.want, ids(list), "%+v", tt.q)
		assert.Equal(t, tt.more, more, "%+v", tt.q)
	}
	unread := func() int {
		n, err := patchdb.Get[int](db, "/public/serverInfo/unreadNotificationCount")
		require.NoError(t, err)
		return n
	}
	assert.Equal(t, 5, unread())
	n, err := m.Mark(t.Context(), notification.Selection{IDs: []uint32{5}, Through: 2}, true)
	require.NoError(t, err)
	assert.Equal(t, 3, n)
	assert.Equal(t, 2, unread())
	list, _, err := m.List(notification.Query{Unread: true})
	require.NoError(t, err)
	assert.Equal(t, []uint32{4, 3}, ids(list))
	_, err = m.Mark(t.Context(), notification.Selection{IDs: []uint32{4, 99}}, true)
	assert.ErrorIs(t, err, problem.New(0, problem.CodeNotFound, ""))
	assert.Equal(t, 2, unread(), "a call that fails changes nothing")
	n, err = m.Delete(t.Context(), notification.Selection{Through: 500})
	require.NoError(t, err)
	assert.Equal(t, 5, n)
	assert.Zero(t, unread())
	assert.EqualValues(t, 6, say(t, m, "info", "an id is never given twice").ID)
	p := "nix"
	_, err = m.Create(t.Context(), state.Notification{Level: "info", PackageID: &p})
	assert.ErrorIs(t, err, problem.New(0, problem.CodeNotFound, ""))
}

func TestBounded(t *testing.T) {
	t.Parallel()
	db := open(t, filepath.Join(t.TempDir(), "state.db"))
	defer db.Close()
	_, err := db.Update(t.Context(), func(tx *patchdb.Tx) error {
		for range notification.Max + 20 {
			if _, err := notification.Add(tx, state.Notification{Level: "info"}); err != nil {
				return err
			}
		}
		return nil
	})
	require.NoError(t, err)
	list, _, err := newManager(t, notification.Options{DB: db}).List(notification.Query{})
	require.NoError(t, err)
	require.Len(t, list, notification.Max)
	assert.EqualValues(t, notification.Max+20, list[0].ID)
}

// hook is a receiver that fails as often as it is told to.
type hook struct {
	*httptest.Server
	got   chan received
	mu    sync.Mutex
	fails int
	tries int
}

type received struct {
	header http.Header
	body   []byte
	msg    notification.Message
}

func newHook(t *testing.T) *hook {
	h := &hook{got: make(chan received, 100)}
	h.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.tries++
		if h.fails > 0 {
			h.fails--
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		text, _ := io.ReadAll(r.Body)
		m := received{header: r.Header, body: text}
		json.Unmarshal(text, &m.msg) //nolint:errcheck // the test sees
		h.got <- m
	}))
	t.Cleanup(h.Close)
	return h
}

func (h *hook) next(t *testing.T) received {
	t.Helper()
	select {
	case m := <-h.got:
		return m
	case <-time.After(20 * time.Second):
		require.Fail(t, "the webhook was not called")
		panic("unreachable")
	}
}

func TestWebhook(t *testing.T) {
	t.Parallel()
	h := newHook(t)
	m := newManager(t, notification.Options{})
	say(t, m, "error", "before there was a webhook")
	key := []byte("0123456789abcdef")
	secret := "whsec_" + base64.StdEncoding.EncodeToString(key)
	_, err := m.SetDelivery(t.Context(), state.Delivery{Webhook: &state.WebhookDelivery{URL: h.URL, Secret: secret, Level: "warning"}})
	require.NoError(t, err)
	h.mu.Lock()
	h.fails = 3
	h.mu.Unlock()
	say(t, m, "info", "not urgent enough")
	say(t, m, "warning", "first")
	say(t, m, "error", "second")
	one, two := h.next(t), h.next(t)
	assert.Equal(t, "first", one.msg.Title, "what failed is tried again, and in order")
	assert.Equal(t, "second", two.msg.Title)
	assert.Equal(t, "srv-3", one.header.Get("webhook-id"))
	mac := hmac.New(sha256.New, key)
	fmt.Fprintf(mac, "srv-3.%s.%s", one.header.Get("webhook-timestamp"), one.body)
	assert.Equal(t, "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)), one.header.Get("webhook-signature"))

	// Without a secret the one of the same URL stays; another URL gets none.
	d, err := m.SetDelivery(t.Context(), state.Delivery{Webhook: &state.WebhookDelivery{URL: h.URL, Level: "info"}})
	require.NoError(t, err)
	assert.Equal(t, secret, d.Webhook.Secret)
	d, err = m.SetDelivery(t.Context(), state.Delivery{Webhook: &state.WebhookDelivery{URL: h.URL + "/x", Level: "info"}})
	require.NoError(t, err)
	assert.Empty(t, d.Webhook.Secret)
	say(t, m, "info", "third")
	assert.Empty(t, h.next(t).header.Get("webhook-signature"))
}

// TestGivesUp: a message that never goes through does not hold up the others
// for ever.
func TestGivesUp(t *testing.T) {
	t.Parallel()
	h := newHook(t)
	m := newManager(t, notification.Options{Attempts: 4})
	_, err := m.SetDelivery(t.Context(), state.Delivery{Webhook: &state.WebhookDelivery{URL: h.URL, Level: "info"}})
	require.NoError(t, err)
	h.mu.Lock()
	h.fails = 4
	h.mu.Unlock()
	say(t, m, "info", "lost")
	say(t, m, "info", "found")
	assert.Equal(t, "found", h.next(t).msg.Title)
	h.mu.Lock()
	assert.Equal(t, 5, h.tries)
	h.mu.Unlock()
	assert.Equal(t, 1, m.Status(notification.Webhook).Dropped)
}

// TestRestart: what was not sent when the server ended is sent by the next one.
func TestRestart(t *testing.T) {
	t.Parallel()
	h := newHook(t)
	h.fails = 1 << 30
	path := filepath.Join(t.TempDir(), "state.db")
	db := open(t, path)
	m := notification.New(notification.Options{DB: db, Pause: time.Hour})
	require.NoError(t, m.Start(t.Context()))
	_, err := m.SetDelivery(t.Context(), state.Delivery{Webhook: &state.WebhookDelivery{URL: h.URL, Level: "info"}})
	require.NoError(t, err)
	say(t, m, "info", "kept")
	require.Eventually(t, func() bool { return m.Status(notification.Webhook).Attempts > 0 }, 20*time.Second, 5*time.Millisecond)
	st := m.Status(notification.Webhook)
	assert.Equal(t, 1, st.Waiting)
	assert.Contains(t, st.Error, "503")
	require.NoError(t, m.Close())
	require.NoError(t, db.Close())
	h.mu.Lock()
	h.fails = 0
	h.mu.Unlock()
	db = open(t, path)
	t.Cleanup(func() { db.Close() })
	m = newManager(t, notification.Options{DB: db})
	assert.Equal(t, "kept", h.next(t).msg.Title)
	require.Eventually(t, func() bool { return m.Status(notification.Webhook).Waiting == 0 }, 20*time.Second, 5*time.Millisecond)
}

// postbox is a mail server, by a library that is not ours.
type postbox struct {
	host  string
	port  uint16
	roots *x509.CertPool
	got   chan *mail.Message
	user  string
}

type postSession struct{ b *postbox }

func (s *postSession) AuthMechanisms() []string { return []string{sasl.Plain} }

func (s *postSession) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, user, password string) error {
		if user != s.b.user || password != "secret" {
			return smtp.ErrAuthFailed
		}
		return nil
	}), nil
}
func (s *postSession) Mail(string, *smtp.MailOptions) error { return nil }
func (s *postSession) Rcpt(to string, _ *smtp.RcptOptions) error {
	if to == "nobody@example.org" {
		return &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "no such mailbox"}
	}
	return nil
}
func (s *postSession) Data(r io.Reader) error {
	m, err := mail.ReadMessage(r)
	if err != nil {
		return err
	}
	text, err := io.ReadAll(m.Body)
	if err != nil {
		return err
	}
	m.Header["Body-Text"] = []string{string(text)}
	s.b.got <- m
	return nil
}
func (s *postSession) Reset()        {}
func (s *postSession) Logout() error { return nil }

func newPostbox(t *testing.T, security string) *postbox {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	leaf, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	b := &postbox{host: "127.0.0.1", roots: x509.NewCertPool(), got: make(chan *mail.Message, 10), user: "me"}
	b.roots.AddCert(leaf)
	srv := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return &postSession{b}, nil }))
	config := &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	b.port = l.Addr().(*net.TCPAddr).AddrPort().Port()
	switch security {
	case "tls":
		l = tls.NewListener(l, config)
	case "starttls":
		srv.TLSConfig = config
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		srv.Serve(l) //nolint:errcheck // it ends by Close
	}()
	t.Cleanup(func() { srv.Close(); <-done })
	return b
}

func (b *postbox) settings(security string) state.SMTP {
	password := "secret"
	return state.SMTP{Host: b.host, Port: b.port, From: "Stead <stead@example.org>", Username: "me", Password: &password, Security: security}
}

func TestMail(t *testing.T) {
	t.Parallel()
	for _, security := range []string{"tls", "starttls"} {
		t.Run(security, func(t *testing.T) {
			t.Parallel()
			b := newPostbox(t, security)
			db := open(t, filepath.Join(t.TempDir(), "state.db"))
			defer db.Close()
			m := newManager(t, notification.Options{DB: db, Roots: b.roots, Attempts: 1 << 20})
			_, err := m.SetDelivery(t.Context(), state.Delivery{Mail: &state.MailDelivery{To: "owner@example.org", Level: "info"}})
			require.NoError(t, err)
			say(t, m, "error", "Größer\r\nBcc: evil@example.org")
			require.Eventually(t, func() bool { return m.Status(notification.SMTP).Attempts > 0 }, 20*time.Second, time.Millisecond)
			assert.Contains(t, m.Status(notification.SMTP).Error, "no outgoing mail server")
			_, err = db.Put(t.Context(), state.SMTPPointer, b.settings(security))
			require.NoError(t, err)
			m.Retry()
			select {
			case got := <-b.got:
				subject, err := (&mime.WordDecoder{}).DecodeHeader(got.Header.Get("Subject"))
				require.NoError(t, err)
				assert.Equal(t, "[stead] Größer Bcc: evil@example.org", subject)
				assert.Empty(t, got.Header.Get("Bcc"), "a title adds no header")
				assert.Contains(t, got.Header.Get("Body-Text"), "text")
				assert.Equal(t, "<srv-1@example.org>", got.Header.Get("Message-Id"))
			case <-time.After(20 * time.Second):
				require.Fail(t, "no mail came", m.Status(notification.SMTP).Error)
			}
		})
	}
}

// TestMailTest: what is wrong with a mail server is told, and nothing is sent
// in the clear.
func TestMailTest(t *testing.T) {
	t.Parallel()
	tlsBox, plainBox := newPostbox(t, "tls"), newPostbox(t, "")
	m := newManager(t, notification.Options{Roots: tlsBox.roots})
	require.NoError(t, m.Test(t.Context(), tlsBox.settings("tls"), "owner@example.org"))
	<-tlsBox.got
	wrong := "wrong"
	for name, tt := range map[string]struct {
		with func(*state.SMTP)
		to   string
		says string
	}{
		"password":  {func(s *state.SMTP) { s.Password = &wrong }, "", "Authentication failed"},
		"mailbox":   {nil, "nobody@example.org", "no such mailbox"},
		"plain":     {func(s *state.SMTP) { *s = plainBox.settings("starttls") }, "", "STARTTLS"},
		"port":      {func(s *state.SMTP) { s.Port = 1 }, "", "refused"},
		"authority": {func(s *state.SMTP) { *s = newPostbox(t, "tls").settings("tls") }, "", "certificate"},
	} {
		s := tlsBox.settings("tls")
		if tt.with != nil {
			tt.with(&s)
		}
		if tt.to == "" {
			tt.to = "owner@example.org"
		}
		err := m.Test(t.Context(), s, tt.to)
		var p *problem.Problem
		require.True(t, errors.As(err, &p), name)
		assert.Equal(t, notification.CodeMail, p.Code, name)
		assert.Contains(t, p.Detail, tt.says, name)
		assert.NotContains(t, p.Detail, "secret", name)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	assert.Error(t, m.Test(ctx, tlsBox.settings("tls"), "owner@example.org"))
}
