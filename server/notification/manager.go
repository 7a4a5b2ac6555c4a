package notification

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/selfstead/selfstead/patchdb"
	"github.com/selfstead/selfstead/server/problem"
	"github.com/selfstead/selfstead/server/state"
)

// Options tunes New. DB is needed.
type Options struct {
	DB       *patchdb.DB
	Roots    *x509.CertPool // of mail servers; nil means the system's
	Pause    time.Duration  // after the first failure, doubled by each more up to 5 min; 0 means 2 s
	Attempts int            // before a message is given up; 0 means 12, which is about half an hour
	Logger   *slog.Logger   // nil means silent
}

const longestPause = 5 * time.Minute

// Names of the channels.
const (
	Webhook = "webhook"
	SMTP    = "mail"
)

// Manager is safe for concurrent use. Close it.
type Manager struct {
	o    Options
	log  *slog.Logger
	http *http.Client

	cancel context.CancelFunc
	done   sync.WaitGroup

	mu       sync.Mutex
	channels map[string]*channel
}

// channel is one way outside while the server runs.
type channel struct {
	wake  chan struct{} // there is something new; has room for one
	again chan struct{} // try at once; has room for one

	status Status
}

// Status is how a channel does. Guarded by Manager.mu.
type Status struct {
	Waiting  int        // messages still to be sent
	Sent     *time.Time // when the last one was taken
	Failed   *time.Time // when the last attempt failed; nil once one succeeds
	Error    string     // of that attempt
	Attempts int        // in a row that failed
	Dropped  int        // given up since the server started
}

// New makes a Manager; nothing is sent before Start.
func New(o Options) *Manager {
	if o.Pause == 0 {
		o.Pause = 2 * time.Second
	}
	if o.Attempts == 0 {
		o.Attempts = 12
	}
	m := &Manager{o: o, log: o.Logger, http: newHookClient(), cancel: func() {}, channels: map[string]*channel{}}
	if m.log == nil {
		m.log = slog.New(slog.DiscardHandler)
	}
	for _, name := range []string{Webhook, SMTP} {
		m.channels[name] = &channel{wake: make(chan struct{}, 1), again: make(chan struct{}, 1)}
	}
	return m
}

// Start sends what is waiting and what comes, until Close.
func (m *Manager) Start(ctx context.Context) error {
	sub, err := m.o.DB.Subscribe(listPointer, patchdb.SubscribeOptions{})
	if err != nil {
		return fmt.Errorf("notification: %w", err)
	}
	ctx, m.cancel = context.WithCancel(context.WithoutCancel(ctx))
	m.done.Go(func() {
		defer sub.Close()
		for {
			if _, err := sub.Next(ctx); err != nil {
				return
			}
			for _, c := range m.channels {
				poke(c.wake)
			}
		}
	})
	for name, c := range m.channels {
		m.done.Go(func() { m.deliver(ctx, name, c) })
	}
	return nil
}

// Close ends sending; what was not sent waits for the next Start. It may be
// called twice.
func (m *Manager) Close() error {
	m.cancel()
	m.done.Wait()
	m.http.CloseIdleConnections()
	return nil
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Delivery reads how notifications leave the server.
func (m *Manager) Delivery() (state.Delivery, error) {
	d, err := patchdb.Get[state.Delivery](m.o.DB, state.DeliveryPointer)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return d, err
}

// SetDelivery replaces it. A channel that is new, or goes elsewhere now, begins
// with what comes from now on. A webhook without a secret keeps the one it has
// as long as its URL stays.
func (m *Manager) SetDelivery(ctx context.Context, d state.Delivery) (state.Delivery, error) {
	_, err := m.o.DB.Update(ctx, func(tx *patchdb.Tx) error {
		was, err := patchdb.TxGet[state.Delivery](tx, state.DeliveryPointer)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		last, err := patchdb.TxGet[uint32](tx, lastPointer)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if d.Webhook != nil {
			same := was.Webhook != nil && was.Webhook.URL == d.Webhook.URL
			if d.Webhook.Sent = last; same {
				d.Webhook.Sent = was.Webhook.Sent
				if d.Webhook.Secret == "" {
					d.Webhook.Secret = was.Webhook.Secret
				}
			}
		}
		if d.Mail != nil {
			if d.Mail.Sent = last; was.Mail != nil && was.Mail.To == d.Mail.To {
				d.Mail.Sent = was.Mail.Sent
			}
		}
		return tx.PutAll(state.DeliveryPointer, d)
	})
	if err == nil {
		m.mu.Lock()
		for _, c := range m.channels {
			c.status.Attempts, c.status.Failed, c.status.Error = 0, nil, ""
		}
		m.mu.Unlock()
		m.Retry()
	}
	return d, err
}

// Retry makes channels that wait after a failure try at once, as after a
// change of the mail server.
func (m *Manager) Retry() {
	for _, c := range m.channels {
		poke(c.again)
	}
}

// Status says how a channel does.
func (m *Manager) Status(name string) Status {
	_, waiting, _ := m.next(name)
	m.mu.Lock()
	defer m.mu.Unlock()
	st := m.channels[name].status
	st.Waiting = waiting
	return st
}

// job is one message on its way.
type job struct {
	n        state.Notification
	delivery state.Delivery
	smtp     *state.SMTP
	server   state.Server
}

// next is the oldest message that a channel has not sent, and how many there
// are.
func (m *Manager) next(name string) (*job, int, error) {
	var out *job
	waiting := 0
	err := m.o.DB.View(func(tx *patchdb.Tx) error {
		d, err := patchdb.TxGet[state.Delivery](tx, state.DeliveryPointer)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		sent, level, ok := reach(d, name)
		if !ok {
			return nil
		}
		list, err := load(tx)
		if err != nil {
			return err
		}
		for _, n := range list {
			if n.ID <= sent || !urgent(n.Level, level) {
				continue
			}
			if waiting++; out == nil {
				out = &job{n: n, delivery: d}
			}
		}
		if out == nil {
			return nil
		}
		if out.server, err = patchdb.TxGet[state.Server](tx, state.ServerInfo); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		s, err := patchdb.TxGet[state.SMTP](tx, state.SMTPPointer)
		switch {
		case err == nil:
			out.smtp = &s
		case !errors.Is(err, fs.ErrNotExist):
			return err
		}
		return nil
	})
	return out, waiting, err
}

func reach(d state.Delivery, name string) (sent uint32, level string, ok bool) {
	switch {
	case name == Webhook && d.Webhook != nil:
		return d.Webhook.Sent, d.Webhook.Level, true
	case name == SMTP && d.Mail != nil:
		return d.Mail.Sent, d.Mail.Level, true
	}
	return 0, "", false
}

// passed records that a channel is done with a message; not when it was set
// anew meanwhile.
func (m *Manager) passed(ctx context.Context, name string, j *job) error {
	_, err := m.o.DB.Update(ctx, func(tx *patchdb.Tx) error {
		d, err := patchdb.TxGet[state.Delivery](tx, state.DeliveryPointer)
		if err != nil {
			return err
		}
		switch {
		case name == Webhook && d.Webhook != nil && d.Webhook.URL == j.delivery.Webhook.URL:
			d.Webhook.Sent = max(d.Webhook.Sent, j.n.ID)
		case name == SMTP && d.Mail != nil && d.Mail.To == j.delivery.Mail.To:
			d.Mail.Sent = max(d.Mail.Sent, j.n.ID)
		default:
			return nil
		}
		return tx.PutAll(state.DeliveryPointer, d)
	})
	return err
}

// deliver is a channel's goroutine.
func (m *Manager) deliver(ctx context.Context, name string, c *channel) {
	failures, about := 0, uint32(0)
	for ctx.Err() == nil {
		select { // a change that this attempt sees, and that must not begin another count after it
		case <-c.again:
			failures = 0
		default:
		}
		j, _, err := m.next(name)
		if err != nil {
			m.log.Error("notifications cannot be read", "channel", name, "err", err)
		}
		if j == nil {
			select {
			case <-c.wake:
			case <-c.again:
			case <-ctx.Done():
			}
			continue
		}
		if j.n.ID != about {
			failures, about = 0, j.n.ID
		}
		err = m.send(ctx, name, j)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			failures++
		}
		m.note(c, err, failures)
		if err == nil || failures >= m.o.Attempts {
			if err != nil {
				m.log.Warn("a notification is given up", "channel", name, "notification", j.n.ID, "err", err)
			}
			if err := m.passed(ctx, name, j); err != nil && ctx.Err() == nil {
				m.log.Error("it cannot be recorded that a notification was sent", "channel", name, "err", err)
				failures++
			} else {
				continue
			}
		}
		pause := min(m.o.Pause<<min(max(failures-1, 0), 12), longestPause)
		timer := time.NewTimer(pause)
		select { // not c.wake: a flood of messages would use up the attempts
		case <-timer.C:
		case <-c.again:
			failures = 0
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

func (m *Manager) note(c *channel, err error, failures int) {
	now := time.Now().UTC()
	m.mu.Lock()
	defer m.mu.Unlock()
	if err == nil {
		c.status.Sent, c.status.Failed, c.status.Error, c.status.Attempts = &now, nil, "", 0
		return
	}
	c.status.Failed, c.status.Error, c.status.Attempts = &now, err.Error(), failures
	if failures >= m.o.Attempts {
		c.status.Dropped++
	}
}

// Message is what a webhook gets.
type Message struct {
	ID        uint32    `json:"id"`
	Server    string    `json:"server"`   // id of the server
	Hostname  string    `json:"hostname"` // its name
	Package   *string   `json:"package"`  // null where the server itself speaks
	Level     string    `json:"level"`
	Title     string    `json:"title"`
	Message   string    `json:"message"`
	CreatedAt time.Time `json:"createdAt"`
}

func (m *Manager) send(ctx context.Context, name string, j *job) error {
	n := j.n
	id := fmt.Sprintf("%s-%d", j.server.ID, n.ID)
	if name == Webhook {
		h := j.delivery.Webhook
		return post(ctx, m.http, h.URL, h.Secret, id, Message{n.ID, j.server.ID, j.server.Hostname, n.PackageID, n.Level, n.Title, n.Message, n.CreatedAt})
	}
	if j.smtp == nil {
		return errors.New("notification: no outgoing mail server is set")
	}
	who := j.server.Hostname
	if n.PackageID != nil {
		who += ", " + *n.PackageID
	}
	return Send(ctx, *j.smtp, m.o.Roots, Mail{
		To: j.delivery.Mail.To, ID: id, Subject: "[" + who + "] " + n.Title,
		Text: fmt.Sprintf("%s\n\n%s, %s, notification %d of %s\n", n.Message, n.Level, n.CreatedAt.Format(time.RFC1123), n.ID, who),
	})
}

// Test sends one mail by the given server.
func (m *Manager) Test(ctx context.Context, s state.SMTP, to string) error {
	err := Send(ctx, s, m.o.Roots, Mail{
		To: to, Subject: "Test of the outgoing mail server", Text: "This mail was sent by a selfstead server to try its outgoing mail server.\n",
	})
	if err != nil {
		return problem.New(http.StatusUnprocessableEntity, CodeMail, "the mail was not sent: "+err.Error()).Because(err).
			WithFix(http.MethodPut, "/v1/system/smtp", "set the outgoing mail server")
	}
	return nil
}

// CodeMail is the problem of a mail server that does not take a mail.
const CodeMail = "mail-failed"
