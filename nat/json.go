package nat

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
)

// The written form of a Config: what `stead nat apply FILE` reads.
//
//	{"forwards":[{"name":"web","source":{"addr":"203.0.113.7","port":443},
//	  "target":{"addr":"10.59.0.2","prefix":24,"port":8443},
//	  "count":1,"protocols":["tcp","udp"],"allowFrom":["192.168.7.0/24"]}]}
//
// count, protocols (both), allowFrom and allowVia (anyone) are optional.
type jsonConfig struct {
	Forwards []jsonForward `json:"forwards"`
}

type jsonForward struct {
	Name      string     `json:"name"`
	Source    jsonEnd    `json:"source"`
	Target    jsonTarget `json:"target"`
	Count     *int       `json:"count,omitempty"`
	Protocols *[]string  `json:"protocols,omitempty"`
	// nil is anyone; the reader refuses an empty list, which could mean no one.
	AllowFrom []netip.Prefix `json:"allowFrom,omitempty"`
	AllowVia  []string       `json:"allowVia,omitempty"`
}

type jsonEnd struct {
	Addr netip.Addr `json:"addr"`
	Port int        `json:"port"`
}

type jsonTarget struct {
	Addr   netip.Addr `json:"addr"`
	Prefix int        `json:"prefix"`
	Port   int        `json:"port"`
}

// ParseConfig reads the written form of a Config and validates it. Members that
// are unknown or given twice, null, empty lists of who is allowed and text after
// the end are refused.
func ParseConfig(r io.Reader) (Config, error) {
	var c Config
	var doc jsonConfig
	text, err := io.ReadAll(r)
	if err != nil {
		return c, fmt.Errorf("nat: read configuration: %w", err)
	}
	if err := decode(text, memberConfig, &doc); err != nil {
		return c, err
	}
	if doc.Forwards == nil {
		return c, fmt.Errorf("%w: no \"forwards\"", ErrInvalid)
	}
	for i := range doc.Forwards {
		f, err := doc.Forwards[i].forward()
		if err != nil {
			err.Index = i
			return Config{}, err
		}
		c.Forwards = append(c.Forwards, f)
	}
	if err := c.Validate(); err != nil {
		return Config{}, err
	}
	return c, nil
}

func decode(text []byte, members member, into any) error {
	err := strict(text, members)
	if err == nil {
		err = json.Unmarshal(text, into)
	}
	if err != nil {
		return fmt.Errorf("%w: %s", ErrInvalid, jsonReason(err))
	}
	return nil
}

func jsonReason(err error) string {
	if errors.Is(err, io.EOF) {
		return "the document is empty"
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return "the document ends too early"
	}
	return err.Error()
}

func (j *jsonForward) forward() (Forward, *ConfigError) {
	f := Forward{
		Name:      j.Name,
		Target:    Target{Addr: j.Target.Addr, Prefix: j.Target.Prefix},
		AllowFrom: j.AllowFrom, AllowVia: j.AllowVia,
	}
	bad := func(field, format string, args ...any) *ConfigError {
		return &ConfigError{Forward: j.Name, Index: -1, Field: field, Reason: fmt.Sprintf(format, args...)}
	}
	for field, empty := range map[string]bool{"allowFrom": j.AllowFrom != nil && len(j.AllowFrom) == 0, "allowVia": j.AllowVia != nil && len(j.AllowVia) == 0} {
		if empty {
			return f, bad(field, "is an empty list, which allows no one; leave it out to allow anyone")
		}
	}
	for _, p := range []struct {
		field string
		port  int
	}{{"source.port", j.Source.Port}, {"target.port", j.Target.Port}} {
		if p.port < 0 || p.port > 65535 {
			return f, bad(p.field, "%d is not within 1 to 65535", p.port)
		}
	}
	f.Source = netip.AddrPortFrom(j.Source.Addr, uint16(j.Source.Port))
	f.Target.Port = uint16(j.Target.Port)
	if j.Count != nil {
		if *j.Count < 1 {
			return f, bad("count", "%d is less than 1", *j.Count)
		}
		f.Count = *j.Count
	}
	if j.Protocols != nil {
		for _, name := range *j.Protocols {
			switch name {
			case "tcp":
				f.Protocols |= TCP
			case "udp":
				f.Protocols |= UDP
			default:
				return f, bad("protocols", "unknown protocol %q", name)
			}
		}
		if f.Protocols == 0 {
			return f, bad("protocols", "none given")
		}
	}
	return f, nil
}

// MarshalJSON returns the written form, every member with a default spelled
// out except restrictions that do not exist.
func (f Forward) MarshalJSON() ([]byte, error) {
	names := []string{}
	for _, p := range []Protocols{TCP, UDP} {
		if f.Protocols == 0 || f.Protocols&p != 0 {
			names = append(names, p.String())
		}
	}
	n := f.ports()
	return json.Marshal(jsonForward{
		Name:   f.Name,
		Source: jsonEnd{f.Source.Addr(), int(f.Source.Port())},
		Target: jsonTarget{f.Target.Addr, f.Target.Prefix, int(f.Target.Port)},
		Count:  &n, Protocols: &names, AllowFrom: f.AllowFrom, AllowVia: f.AllowVia,
	})
}

// UnmarshalJSON reads the written form of one forward, as strictly as ParseConfig.
func (f *Forward) UnmarshalJSON(b []byte) error {
	var j jsonForward
	if err := decode(b, memberForward, &j); err != nil {
		return err
	}
	out, bad := j.forward()
	if bad != nil {
		return bad
	}
	*f = out
	return nil
}

// MarshalJSON returns the written form.
func (c Config) MarshalJSON() ([]byte, error) {
	list := c.Forwards
	if list == nil {
		list = []Forward{}
	}
	return json.Marshal(struct {
		Forwards []Forward `json:"forwards"`
	}{list})
}

// UnmarshalJSON reads the written form and validates it, as ParseConfig does.
func (c *Config) UnmarshalJSON(b []byte) error {
	out, err := ParseConfig(bytes.NewReader(b))
	if err == nil {
		*c = out
	}
	return err
}
