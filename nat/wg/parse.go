package wg

import (
	"bufio"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// maxConf bounds the text of a .conf file.
const maxConf = 1 << 20

// Parse reads a .conf file as wg-quick(8) understands it and validates it.
// Names are matched in any case; "#" and ";" begin a comment; lists may be
// spread over several lines. An address without length is a single one. Search
// domains among DNS are dropped, hooks, Table and SaveConfig passed over. Any
// other name is an error, and every error names the line.
func Parse(r io.Reader) (Config, error) {
	var c Config
	var section string
	in := bufio.NewScanner(io.LimitReader(r, maxConf))
	in.Buffer(nil, maxConf)
	for n := 1; in.Scan(); n++ {
		text := in.Text()
		if i := strings.IndexAny(text, "#;"); i >= 0 {
			text = text[:i]
		}
		text = strings.TrimSpace(text)
		if text == "" {
			continue
		}
		if strings.HasPrefix(text, "[") {
			section = strings.ToLower(text)
			switch section {
			case "[interface]":
			case "[peer]":
				c.Peers = append(c.Peers, Peer{})
			default:
				return Config{}, fmt.Errorf("%w: line %d: section %s", ErrInvalid, n, text)
			}
			continue
		}
		name, value, ok := strings.Cut(text, "=")
		if !ok || section == "" {
			return Config{}, fmt.Errorf("%w: line %d: %q", ErrInvalid, n, text)
		}
		name, value = strings.ToLower(strings.TrimSpace(name)), strings.TrimSpace(value)
		var err error
		if section == "[interface]" {
			err = c.set(name, value)
		} else {
			err = c.Peers[len(c.Peers)-1].set(name, value)
		}
		if err != nil {
			return Config{}, fmt.Errorf("%w: line %d: %s: %w", ErrInvalid, n, name, err)
		}
	}
	if err := in.Err(); err != nil {
		return Config{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return c, c.Validate()
}

func (c *Config) set(name, value string) (err error) {
	switch name {
	case "privatekey":
		c.PrivateKey, err = ParseKey(value)
	case "address":
		err = addPrefixes(&c.Addresses, value)
	case "listenport":
		c.ListenPort, err = number[uint16](value, 10, 16)
	case "fwmark":
		if value != "off" {
			c.FwMark, err = number[uint32](value, 0, 32)
		}
	case "mtu":
		c.MTU, err = strconv.Atoi(value)
	case "dns":
		for word := range words(value) {
			if ip, perr := netip.ParseAddr(word); perr == nil {
				c.DNS = append(c.DNS, ip)
			}
		}
	case "table", "saveconfig", "preup", "postup", "predown", "postdown":
	default:
		err = fmt.Errorf("unknown name")
	}
	return err
}

func (p *Peer) set(name, value string) (err error) {
	switch name {
	case "publickey":
		p.PublicKey, err = ParseKey(value)
	case "presharedkey":
		p.PresharedKey, err = ParseKey(value)
	case "endpoint":
		p.Endpoint = value
	case "allowedips":
		err = addPrefixes(&p.AllowedIPs, value)
		p.AllowedIPs = masked(p.AllowedIPs)
	case "persistentkeepalive":
		if value != "off" {
			var s uint16
			s, err = number[uint16](value, 10, 16)
			p.Keepalive = time.Duration(s) * time.Second
		}
	default:
		err = fmt.Errorf("unknown name")
	}
	return err
}

func number[T uint16 | uint32](s string, base, bits int) (T, error) {
	n, err := strconv.ParseUint(s, base, bits)
	return T(n), err
}

// words yields the parts of a comma list.
func words(s string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for part := range strings.SplitSeq(s, ",") {
			if part = strings.TrimSpace(part); part != "" && !yield(part) {
				return
			}
		}
	}
}

func addPrefixes(list *[]netip.Prefix, value string) error {
	for word := range words(value) {
		if !strings.Contains(word, "/") {
			ip, err := netip.ParseAddr(word)
			if err != nil {
				return err
			}
			*list = append(*list, netip.PrefixFrom(ip, ip.BitLen()))
			continue
		}
		p, err := netip.ParsePrefix(word)
		if err != nil {
			return err
		}
		*list = append(*list, p)
	}
	return nil
}
