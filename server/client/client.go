package client

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/selfstead/selfstead/server/problem"
)

// maxAnswer bounds what is read of an answer that is not a stream.
const maxAnswer = 256 << 20

// Options say which server; one of Socket and URL has to be set.
type Options struct {
	Socket    string // path of the server's own socket
	URL       string // "http://127.0.0.1:8080"
	Token     string // of a session; not on the socket
	RootCA    []byte // PEM of the server's root certificate; nil means the system's
	UserAgent string
}

// Client is safe to share.
type Client struct {
	base  string
	token string
	agent string
	http  *http.Client
}

// New makes a client. It connects with its first call.
func New(o Options) (*Client, error) {
	c := &Client{token: o.Token, agent: o.UserAgent}
	transport := &http.Transport{ForceAttemptHTTP2: true, IdleConnTimeout: time.Minute, TLSHandshakeTimeout: 15 * time.Second}
	dialer := &net.Dialer{Timeout: 15 * time.Second}
	transport.DialContext = dialer.DialContext
	switch {
	case o.Socket != "":
		c.base = "http://socket"
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", o.Socket)
		}
	default:
		u, err := url.Parse(o.URL)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			return nil, fmt.Errorf("client: %q is not the URL of a server", o.URL)
		}
		c.base = u.Scheme + "://" + u.Host
		if o.RootCA != nil {
			pool := x509.NewCertPool()
			if !pool.AppendCertsFromPEM(o.RootCA) {
				return nil, errors.New("client: the root certificate is not PEM")
			}
			transport.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
		}
	}
	c.http = &http.Client{Transport: transport}
	return c, nil
}

// Close drops idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Base is the server's URL.
func (c *Client) Base() string { return c.base }

// request makes a request with what every one carries.
func (c *Client) request(ctx context.Context, method, path string, body io.Reader) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	if c.agent != "" {
		req.Header.Set("User-Agent", c.agent)
	}
	return req, nil
}

// send makes the request; an answer that is no success becomes an error.
func (c *Client) send(req *http.Request) (*http.Response, error) {
	res, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	if res.StatusCode < 300 {
		return res, nil
	}
	defer res.Body.Close()
	return nil, failure(res)
}

// failure reads the problem of an answer.
func failure(res *http.Response) error {
	text, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil {
		return fmt.Errorf("client: %s: %w", res.Status, err)
	}
	if kind, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type")); kind == problem.ContentType {
		p := &problem.Problem{}
		if json.Unmarshal(text, p) == nil && p.Code != "" {
			return p
		}
	}
	return fmt.Errorf("client: %s %s: %s", res.Request.Method, res.Request.URL.Path, res.Status)
}

// Call makes one call with JSON both ways. in may be nil; out may be nil, or a
// *[]byte for the answer as it is.
func (c *Client) Call(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		text, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("client: %w", err)
		}
		body = bytes.NewReader(text)
	}
	req, err := c.request(ctx, method, path, body)
	if err != nil {
		return err
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := c.send(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("client: %w", err)
	}
	switch out := out.(type) {
	case nil:
		return nil
	case *[]byte:
		*out = text
		return nil
	}
	if err := json.Unmarshal(text, out); err != nil {
		return fmt.Errorf("client: answer of %s %s: %w", method, path, err)
	}
	return nil
}

// FetchRoot reads the root certificate that a server offers, without trusting
// it, and its SHA-256 fingerprint for a person to compare.
func FetchRoot(ctx context.Context, server string) (pem []byte, fingerprint string, err error) {
	u, err := url.Parse(server)
	if err != nil {
		return nil, "", fmt.Errorf("client: %w", err)
	}
	host := u.Host
	if u.Port() == "" {
		host = net.JoinHostPort(u.Hostname(), "443")
	}
	// The handshake is not verified: whoever asks compares the fingerprint.
	dialer := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true, ServerName: u.Hostname(), MinVersion: tls.VersionTLS12}} //nolint:gosec // see above
	conn, err := dialer.DialContext(ctx, "tcp", host)
	if err != nil {
		return nil, "", fmt.Errorf("client: %w", err)
	}
	defer conn.Close()
	chain := conn.(*tls.Conn).ConnectionState().PeerCertificates
	root := chain[len(chain)-1]
	sum := sha256.Sum256(root.Raw)
	text := strings.ToUpper(hex.EncodeToString(sum[:]))
	var pairs []string
	for i := 0; i < len(text); i += 2 {
		pairs = append(pairs, text[i:i+2])
	}
	return encodePEM(root.Raw), strings.Join(pairs, ":"), nil
}
