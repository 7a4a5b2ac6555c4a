package notification

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// hookTime is the longest that a webhook may take to answer.
const hookTime = 20 * time.Second

// newHookClient follows no redirects: an address that moved is the owner's to
// change.
func newHookClient() *http.Client {
	return &http.Client{
		Timeout: hookTime, Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// post makes one call of a webhook (Standard Webhooks 1.0).
func post(ctx context.Context, c *http.Client, url, secret, id string, content any) error {
	text, err := json.Marshal(content)
	if err != nil {
		return fmt.Errorf("notification: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(text))
	if err != nil {
		return fmt.Errorf("notification: webhook: %w", err)
	}
	at := strconv.FormatInt(time.Now().Unix(), 10)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "selfstead")
	req.Header.Set("webhook-id", id)
	req.Header.Set("webhook-timestamp", at)
	if secret != "" {
		mac := hmac.New(sha256.New, hookKey(secret))
		fmt.Fprintf(mac, "%s.%s.%s", id, at, text)
		req.Header.Set("webhook-signature", "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	}
	res, err := c.Do(req)
	if err != nil {
		return fmt.Errorf("notification: webhook: %w", err)
	}
	defer res.Body.Close()
	io.CopyN(io.Discard, res.Body, 64<<10) //nolint:errcheck // what it says does not matter
	if res.StatusCode/100 != 2 {
		return fmt.Errorf("notification: the webhook answers %s", res.Status)
	}
	return nil
}

// hookKey is the key of a secret: what follows whsec_ is base64, anything else
// is the key itself.
func hookKey(secret string) []byte {
	if text, ok := strings.CutPrefix(secret, "whsec_"); ok {
		if key, err := base64.StdEncoding.DecodeString(text); err == nil {
			return key
		}
	}
	return []byte(secret)
}
