package s9pk

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"path"
	"strings"

	"golang.org/x/net/idna"
)

// specialPorts are the schemes with an authority that the URL standard (WHATWG)
// treats alike, and their default ports.
var specialPorts = map[string]string{"http": "80", "https": "443", "ws": "80", "wss": "443", "ftp": "21", "file": ""}

// NormalizeURL brings an absolute URL into the form in which StartOS compares
// and writes it: scheme and host in lower case, no default port, no dot
// segments, "/" as the empty path, what needs it percent-encoded, international
// host names in their ASCII form. It covers the URLs of manifests, not all of
// the URL standard: IPv4 addresses in unusual notations stay as they are.
func NormalizeURL(s string) (string, error) {
	s = strings.TrimFunc(s, func(r rune) bool { return r <= ' ' })
	s = strings.NewReplacer("\t", "", "\n", "", "\r", "").Replace(s)
	scheme, rest, ok := strings.Cut(s, ":")
	if !ok || !validScheme(scheme) {
		return "", errors.New("relative URL without a base")
	}
	scheme = strings.ToLower(scheme)
	port, special := specialPorts[scheme]
	if !special {
		return normalizeOther(scheme, rest)
	}
	rest, frag, hasFrag := strings.Cut(rest, "#")
	rest, query, hasQuery := strings.Cut(rest, "?")
	rest = strings.ReplaceAll(rest, `\`, "/")
	var authority string
	if scheme == "file" {
		trimmed, ok := strings.CutPrefix(rest, "//")
		if ok {
			authority, rest = cutAuthority(trimmed)
		}
	} else {
		authority, rest = cutAuthority(strings.TrimLeft(rest, "/"))
	}
	host, err := normalizeAuthority(authority, port, scheme == "file")
	if err != nil {
		return "", err
	}
	out := scheme + "://" + host + cleanPath(encode(rest, pathSet))
	if hasQuery {
		out += "?" + encode(query, querySet)
	}
	if hasFrag {
		out += "#" + encode(frag, fragmentSet)
	}
	return out, nil
}

func validScheme(s string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i] | 0x20
		if c >= 'a' && c <= 'z' || i > 0 && (s[i] >= '0' && s[i] <= '9' || strings.IndexByte("+-.", s[i]) >= 0) {
			continue
		}
		return false
	}
	return s != ""
}

func cutAuthority(s string) (authority, rest string) {
	if i := strings.IndexByte(s, '/'); i >= 0 {
		return s[:i], s[i:]
	}
	return s, ""
}

// normalizeOther is for schemes whose rest has no meaning here ("mailto:").
func normalizeOther(scheme, rest string) (string, error) {
	u, err := url.Parse(scheme + ":" + encode(rest, fragmentSet))
	if err != nil {
		return "", err
	}
	return u.String(), nil
}

func normalizeAuthority(authority, defaultPort string, file bool) (string, error) {
	user := ""
	if i := strings.LastIndexByte(authority, '@'); i >= 0 {
		name, password, _ := strings.Cut(authority[:i], ":")
		user, authority = encode(name, userSet), authority[i+1:]
		if password != "" {
			user += ":" + encode(password, userSet)
		}
		if user != "" {
			user += "@"
		}
	}
	host, port := authority, ""
	if i := strings.LastIndexByte(authority, ':'); i >= 0 && !strings.HasSuffix(authority, "]") {
		host, port = authority[:i], authority[i+1:]
	}
	host, err := hostname(host)
	if err != nil {
		return "", err
	}
	if host == "" {
		if file {
			return "", nil
		}
		return "", errors.New("empty host")
	}
	if inner, ok := strings.CutPrefix(host, "["); ok {
		ip := net.ParseIP(strings.TrimSuffix(inner, "]"))
		if ip == nil {
			return "", errors.New("invalid IPv6 address")
		}
		host = "[" + ip.String() + "]"
	} else if i := strings.IndexFunc(host, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune(`#%/:<>?@[\]^|`, r) }); i >= 0 {
		return "", fmt.Errorf("invalid character in host %q", host)
	}
	n := 0
	for _, c := range port {
		if c < '0' || c > '9' {
			return "", errors.New("invalid port number")
		}
		if n = n*10 + int(c-'0'); n > 65535 {
			return "", errors.New("invalid port number")
		}
	}
	if port != "" {
		if p := fmt.Sprint(n); p != defaultPort {
			host += ":" + p
		}
	}
	return user + host, nil
}

// cleanPath removes dot segments and keeps doubled slashes.
func cleanPath(p string) string {
	var out []string
	parts := strings.Split(strings.TrimPrefix(p, "/"), "/")
	for i, part := range parts {
		last := i == len(parts)-1
		switch strings.ReplaceAll(strings.ToLower(part), "%2e", ".") {
		case ".":
		case "..":
			if len(out) > 0 {
				out = out[:len(out)-1]
			}
		default:
			out = append(out, part)
			continue
		}
		if last {
			out = append(out, "")
		}
	}
	return "/" + strings.Join(out, "/")
}

// What is percent-encoded in the parts of a URL, besides controls, spaces and
// everything outside ASCII.
const (
	pathSet     = "\"<>`{}"
	querySet    = "\"<>'"
	fragmentSet = "\"<>`"
	userSet     = pathSet + "/:;=@[\\]^|"
)

func encode(s, set string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c <= ' ' || c > '~' || strings.IndexByte(set, c) >= 0 {
			fmt.Fprintf(&b, "%%%02X", c)
			continue
		}
		b.WriteByte(c)
	}
	return b.String()
}

// hostname is a host in lower case and ASCII.
func hostname(host string) (string, error) {
	for i := 0; i < len(host); i++ {
		if host[i] >= 0x80 {
			ascii, err := idna.Lookup.ToASCII(host)
			if err != nil {
				return "", fmt.Errorf("invalid international host name %q", host)
			}
			return ascii, nil
		}
	}
	return strings.ToLower(host), nil
}

// normalizePathOrURL reads a build input: a URL, or else a path, which is
// written with the prefix "file://".
func normalizePathOrURL(s string) string {
	if p, ok := strings.CutPrefix(s, "file://"); ok {
		return "file://" + p
	}
	if u, err := NormalizeURL(s); err == nil {
		return u
	}
	return "file://" + s
}

// extension is what follows the last dot of a path's last component.
func extension(name string) string {
	name = path.Base(name)
	if i := strings.LastIndexByte(name, '.'); i > 0 {
		return name[i+1:]
	}
	return ""
}
