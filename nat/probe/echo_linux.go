package probe

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"syscall"
)

// Echo asks an echo-IP service, by the gateway.
//
// Such a service answers GET /ip with the caller's address as text, and GET
// /port/N, after trying to connect back to the caller's port N, with
// {"ip": text, "port": N, "reachable": bool}.
type Echo struct {
	Base    string // URL; a path in it is kept, and may end in a slash
	Gateway Gateway
}

// Seen is what the service saw of a port.
type Seen struct {
	Addr      netip.Addr // the caller's address as the service saw it
	Reachable bool
}

// maxAnswer is the most that is read of an answer.
const maxAnswer = 4096

// IP returns the address from which the service sees this gateway.
func (e *Echo) IP(ctx context.Context) (netip.Addr, error) {
	body, err := e.get(ctx, "ip")
	if err != nil {
		return netip.Addr{}, err
	}
	ip, err := netip.ParseAddr(strings.TrimSpace(string(body)))
	if err != nil {
		return netip.Addr{}, fmt.Errorf("probe: %s/ip: %w", e.Base, err)
	}
	return ip.Unmap(), nil
}

// Port lets the service connect back to a TCP port.
func (e *Echo) Port(ctx context.Context, port uint16) (Seen, error) {
	path := "port/" + strconv.Itoa(int(port))
	body, err := e.get(ctx, path)
	if err != nil {
		return Seen{}, err
	}
	var out struct {
		IP        netip.Addr
		Port      uint16
		Reachable *bool
	}
	if err := json.Unmarshal(body, &out); err != nil {
		return Seen{}, fmt.Errorf("probe: %s/%s: %w", e.Base, path, err)
	}
	if !out.IP.IsValid() || out.Reachable == nil || out.Port != port {
		return Seen{}, fmt.Errorf("probe: %s/%s: the answer is about another port or lacks ip or reachable", e.Base, path)
	}
	return Seen{Addr: out.IP.Unmap(), Reachable: *out.Reachable}, nil
}

func (e *Echo) get(ctx context.Context, path string) ([]byte, error) {
	u, err := url.Parse(e.Base)
	if err != nil {
		return nil, fmt.Errorf("probe: %w", err)
	}
	if u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("probe: %q is not an http or https address", e.Base)
	}
	ctx, cancel := context.WithTimeout(ctx, Limit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.JoinPath(path).String(), nil)
	if err != nil {
		return nil, fmt.Errorf("probe: %w", err)
	}
	d := e.Gateway.Dialer()
	c := &http.Client{
		Transport:     &http.Transport{DialContext: d.DialContext, DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	r, err := c.Do(req)
	if err != nil {
		return nil, fmt.Errorf("probe: %w", err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(io.LimitReader(r.Body, maxAnswer+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("probe: %s: %w", req.URL, err)
	case r.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("probe: %s: %s", req.URL, r.Status)
	case len(body) > maxAnswer:
		return nil, fmt.Errorf("probe: %s: answer of more than %d bytes", req.URL, maxAnswer)
	}
	return body, nil
}

// local says whether err is this host's own fault and tells nothing about the
// other side.
func local(err error) bool {
	for _, e := range []error{syscall.EADDRNOTAVAIL, syscall.ENODEV, syscall.EPERM, syscall.EACCES, syscall.EMFILE, syscall.ENFILE} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
