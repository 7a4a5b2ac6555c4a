package notification

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"mime"
	"mime/quotedprintable"
	"net"
	"net/mail"
	"net/smtp"
	"strconv"
	"strings"
	"time"

	"github.com/selfstead/selfstead/server/state"
)

// mailTime is the longest that sending one mail takes.
const mailTime = 30 * time.Second

// Mail is one message.
type Mail struct {
	To, Subject, Text string
	ID                string // left part of its Message-ID; "" means a random one
}

// Send sends a mail by an SMTP server (RFC 5321): with TLS from the first byte,
// or with STARTTLS (RFC 3207), never without. roots are the authorities that
// its certificate may come from, nil means the system's.
func Send(ctx context.Context, s state.SMTP, roots *x509.CertPool, m Mail) error {
	from, err := mail.ParseAddress(s.From)
	if err != nil {
		return fmt.Errorf("notification: sender %q: %w", s.From, err)
	}
	to, err := mail.ParseAddress(m.To)
	if err != nil {
		return fmt.Errorf("notification: recipient %q: %w", m.To, err)
	}
	ctx, cancel := context.WithTimeout(ctx, mailTime)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", net.JoinHostPort(s.Host, strconv.Itoa(int(s.Port))))
	if err != nil {
		return fmt.Errorf("notification: mail server: %w", err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })() //nolint:errcheck // it interrupts
	err = converse(conn, s, roots, from, to, message(from, to, m))
	if cause := ctx.Err(); err != nil && cause != nil {
		return fmt.Errorf("notification: mail server: %w", errors.Join(cause, err))
	}
	if err != nil {
		return fmt.Errorf("notification: mail server: %w", err)
	}
	return nil
}

func converse(conn net.Conn, s state.SMTP, roots *x509.CertPool, from, to *mail.Address, text []byte) error {
	config := &tls.Config{ServerName: s.Host, RootCAs: roots, MinVersion: tls.VersionTLS12}
	if s.Security == "tls" {
		conn = tls.Client(conn, config)
	}
	c, err := smtp.NewClient(conn, s.Host)
	if err != nil {
		return err
	}
	defer c.Close()
	if s.Security != "tls" {
		if ok, _ := c.Extension("STARTTLS"); !ok {
			return errors.New("it does not offer STARTTLS")
		}
		if err := c.StartTLS(config); err != nil {
			return err
		}
	}
	if s.Password != nil {
		if err := c.Auth(smtp.PlainAuth("", s.Username, *s.Password, s.Host)); err != nil {
			return err
		}
	}
	if err := c.Mail(from.Address); err != nil {
		return err
	}
	if err := c.Rcpt(to.Address); err != nil {
		return err
	}
	w, err := c.Data()
	if err != nil {
		return err
	}
	if _, err := w.Write(text); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	return c.Quit()
}

// message is the mail as it is sent (RFC 5322); what packages say cannot add
// header lines.
func message(from, to *mail.Address, m Mail) []byte {
	id := m.ID
	if id == "" {
		id = rand.Text()
	}
	_, domain, _ := strings.Cut(from.Address, "@")
	var b bytes.Buffer
	subject := strings.Join(strings.FieldsFunc(m.Subject, func(r rune) bool { return r < ' ' || r == 0x7f }), " ")
	for _, h := range [][2]string{
		{"From", from.String()}, {"To", to.String()}, {"Subject", mime.QEncoding.Encode("utf-8", subject)},
		{"Date", time.Now().UTC().Format(time.RFC1123Z)}, {"Message-ID", "<" + id + "@" + domain + ">"}, {"Auto-Submitted", "auto-generated"},
		{"MIME-Version", "1.0"}, {"Content-Type", "text/plain; charset=utf-8"}, {"Content-Transfer-Encoding", "quoted-printable"},
	} {
		fmt.Fprintf(&b, "%s: %s\r\n", h[0], h[1])
	}
	b.WriteString("\r\n")
	w := quotedprintable.NewWriter(&b)
	w.Write([]byte(m.Text)) //nolint:errcheck // to memory
	w.Close()               //nolint:errcheck // to memory
	b.WriteString("\r\n")
	return b.Bytes()
}
