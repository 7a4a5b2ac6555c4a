package nat

import (
	"encoding/json"
	"errors"
	"math"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func ap(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }
func px(s string) netip.Prefix   { return netip.MustParsePrefix(s) }
func ad(s string) netip.Addr     { return netip.MustParseAddr(s) }

func good() Forward {
	return Forward{Name: "web", Source: ap("203.0.113.7:443"), Target: Target{ad("10.59.0.2"), 24, 8443}}
}

func TestValidate(t *testing.T) {
	t.Parallel()
	other := good()
	other.Name = "other"
	for name, tc := range map[string]struct {
		edit   func(f *Forward)
		also   *Forward
		field  string
		reason string
	}{
		"no name":              {edit: func(f *Forward) { f.Name = "" }, field: "name", reason: "empty"},
		"long name":            {edit: func(f *Forward) { f.Name = strings.Repeat("x", 121) }, field: "name", reason: "longer"},
		"newline in name":      {edit: func(f *Forward) { f.Name = "a\nb" }, field: "name", reason: "printed"},
		"no source":            {edit: func(f *Forward) { f.Source = netip.AddrPort{} }, field: "source.addr", reason: "missing"},
		"source port 0":        {edit: func(f *Forward) { f.Source = ap("203.0.113.7:0") }, field: "source.port", reason: "0"},
		"target port 0":        {edit: func(f *Forward) { f.Target.Port = 0 }, field: "target.port", reason: "0"},
		"any source":           {edit: func(f *Forward) { f.Source = ap("0.0.0.0:1") }, field: "source.addr", reason: "no address"},
		"multicast target":     {edit: func(f *Forward) { f.Target.Addr = ad("224.0.0.1") }, field: "target.addr", reason: "unicast"},
		"broadcast target":     {edit: func(f *Forward) { f.Target.Addr = ad("255.255.255.255") }, field: "target.addr", reason: "unicast"},
		"mixed families":       {edit: func(f *Forward) { f.Target.Addr = ad("fd00::1") }, field: "target.addr", reason: "family"},
		"IPv4 in IPv6":         {edit: func(f *Forward) { f.Source = ap("[::ffff:1.2.3.4]:1") }, field: "source.addr", reason: "IPv6 form"},
		"zone":                 {edit: func(f *Forward) { f.Source = ap("[fe80::1%eth0]:1") }, field: "source.addr", reason: "zone"},
		"link-local":           {edit: func(f *Forward) { f.Source, f.Target.Addr = ap("[fe80::1]:1"), ad("fd00::1") }, field: "source.addr", reason: "link-local"},
		"prefix 0":             {edit: func(f *Forward) { f.Target.Prefix = 0 }, field: "target.prefix", reason: "1 to 32"},
		"prefix 33":            {edit: func(f *Forward) { f.Target.Prefix = 33 }, field: "target.prefix", reason: "1 to 32"},
		"loopback target":      {edit: func(f *Forward) { f.Target.Addr = ad("127.0.0.1") }, field: "target.addr", reason: "loopback"},
		"IPv6 loopback source": {edit: func(f *Forward) { f.Source, f.Target = ap("[::1]:1"), Target{ad("fd00::1"), 64, 1} }, field: "source.addr", reason: "route_localnet"},
		"negative count":       {edit: func(f *Forward) { f.Count = -1 }, field: "count", reason: "negative"},
		"range past the end":   {edit: func(f *Forward) { f.Source, f.Count = ap("203.0.113.7:65530"), 7 }, field: "count", reason: "65536, past 65535"},
		"target past the end":  {edit: func(f *Forward) { f.Target.Port, f.Count = 65530, 7 }, field: "count", reason: "65536, past 65535"},
		"count that overflows": {edit: func(f *Forward) { f.Count = math.MaxInt }, field: "count", reason: "past 65535"},
		"unknown protocol":     {edit: func(f *Forward) { f.Protocols = 4 }, field: "protocols", reason: "unknown"},
		"bad allowFrom":        {edit: func(f *Forward) { f.AllowFrom = []netip.Prefix{{}} }, field: "allowFrom", reason: "valid"},
		"allowFrom family":     {edit: func(f *Forward) { f.AllowFrom = []netip.Prefix{px("fd00::/8")} }, field: "allowFrom", reason: "family"},
		"bad interface":        {edit: func(f *Forward) { f.AllowVia = []string{"way too long a name"} }, field: "allowVia", reason: "interface"},
		"itself":               {edit: func(f *Forward) { f.Target = Target{ad("203.0.113.7"), 24, 443} }, field: "target", reason: "itself"},
		"name twice":           {edit: func(f *Forward) { f.Source = ap("203.0.113.8:1") }, also: &Forward{Name: "web", Source: ap("203.0.113.9:1"), Target: good().Target}, field: "name", reason: "twice"},
		"port twice":           {edit: func(f *Forward) {}, also: &other, field: "source", reason: `already forwarded by "web"`},
		"port inside a range": {
			edit: func(f *Forward) { f.Source, f.Target.Port, f.Count = ap("203.0.113.7:440"), 440, 10 }, also: &other, field: "source", reason: "443 tcp is already",
		},
		"range over a port": {
			edit: func(f *Forward) { f.Protocols = UDP }, also: &Forward{Name: "r", Source: ap("203.0.113.7:440"), Target: Target{ad("10.59.0.2"), 24, 440}, Count: 10},
			field: "source", reason: "443 udp is already",
		},
		"ranges overlap": {
			edit:  func(f *Forward) { f.Source, f.Target.Port, f.Count = ap("203.0.113.7:100"), 100, 10 },
			also:  &Forward{Name: "r", Source: ap("203.0.113.7:109"), Target: Target{ad("10.59.0.2"), 24, 109}, Count: 10},
			field: "source", reason: "109 tcp",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := good()
			tc.edit(&f)
			cfg := Config{Forwards: []Forward{f}}
			if tc.also != nil {
				cfg.Forwards = append(cfg.Forwards, *tc.also)
			}
			err := cfg.Validate()
			require.ErrorIs(t, err, ErrInvalid)
			var ce *ConfigError
			require.ErrorAs(t, err, &ce)
			require.Equal(t, tc.field, ce.Field)
			require.Contains(t, ce.Reason, tc.reason)
			require.Equal(t, len(cfg.Forwards)-1, ce.Index)
			require.NotContains(t, err.Error(), "\n")
		})
	}
	whole := good()
	whole.Source, whole.Target.Port, whole.Count = ap("203.0.113.7:1"), 1, 65535
	tcp, udp := good(), good()
	tcp.Protocols, udp.Protocols, udp.Name = TCP, UDP, "udp"
	for name, list := range map[string][]Forward{
		"plain": {good()}, "all ports": {whole}, "one port, two protocols": {tcp, udp}, "none": nil,
	} {
		require.NoError(t, Config{Forwards: list}.Validate(), name)
	}
}

func TestParseConfig(t *testing.T) {
	t.Parallel()
	const text = `{"forwards":[{"name":"web","source":{"addr":"203.0.113.7","port":443},"target":{"addr":"10.59.0.2","prefix":24,"port":8443},"count":1,"protocols":["tcp","udp"],"allowFrom":["192.168.7.0/24"]}]}`
	cfg, err := ParseConfig(strings.NewReader(text))
	require.NoError(t, err)
	want := good()
	want.Count, want.Protocols, want.AllowFrom = 1, TCP|UDP, []netip.Prefix{px("192.168.7.0/24")}
	require.Equal(t, Config{Forwards: []Forward{want}}, cfg)
	b, err := json.Marshal(cfg)
	require.NoError(t, err)
	require.Equal(t, text, string(b))
	var back Config
	require.NoError(t, json.Unmarshal(b, &back))
	require.True(t, cfg.Equal(back))

	cfg, err = ParseConfig(strings.NewReader(`{"forwards":[{"name":"web","source":{"addr":"203.0.113.7","port":443},"target":{"addr":"10.59.0.2","prefix":24,"port":8443}}]}`))
	require.NoError(t, err)
	require.Equal(t, Config{Forwards: []Forward{good()}}, cfg)

	for text, part := range map[string]string{
		``:                              "empty",
		`{`:                             "too early",
		`{}`:                            "forwards",
		`{"forwards":[]} {}`:            "after the end",
		`{"forward":[]}`:                "unknown field \"forward\"",
		`[]`:                            "cannot unmarshal array",
		`{"forwards":[[[]]]}`:           "list within a list",
		`{"forwards":[],"forwards":[]}`: `"forwards" is given twice`,
		`{"forwards":[],"Forwards":[]}`: `unknown field "Forwards"`,
		`{"forwards":[{"name":"a","count":1,"count":2}]}`:         `"forwards[0].count" is given twice`,
		`{"forwards":[{},{"source":{"port":1,"port":1}}]}`:        `"forwards[1].source.port" is given twice`,
		`{"forwards":[{"source":{"prefix":1}}]}`:                  `unknown field "forwards[0].source.prefix"`,
		`{"forwards":[{"source":5}]}`:                             "source",
		`{"forwards":null}`:                                       `"forwards" is null`,
		`{"forwards":[{"name":"a","allowFrom":null}]}`:            `"forwards[0].allowFrom" is null`,
		`{"forwards":[{"name":"a","allowFrom":[]}]}`:              `"a": allowFrom: is an empty list, which allows no one`,
		`{"forwards":[{"name":"a","allowVia":[]}]}`:               `"a": allowVia: is an empty list`,
		`{"forwards":[{"name":"a","protocols":[{"a":1}]}]}`:       "is an object",
		`{"forwards":[{"name":"a","source":{"addr":"x"}}]}`:       "ParseAddr",
		`{"forwards":[{"name":"a","source":{"port":65536}}]}`:     "65536",
		`{"forwards":[{"name":"a","count":0}]}`:                   "less than 1",
		`{"forwards":[{"name":"a","protocols":[]}]}`:              "none given",
		`{"forwards":[{"name":"a","protocols":["sctp"]}]}`:        "sctp",
		`{"forwards":[{"name":"a","allowFrom":["192.168.1.1"]}]}`: "ParsePrefix",
	} {
		_, err := ParseConfig(strings.NewReader(text))
		require.ErrorIs(t, err, ErrInvalid, text)
		require.ErrorContains(t, err, part)
		require.NotContains(t, err.Error(), "\n")
	}
	require.NoError(t, func() error { _, err := ParseConfig(strings.NewReader(`{"forwards":[]}`)); return err }())
	require.False(t, errors.Is(ErrInvalid, ErrConflict))
}

func TestSources(t *testing.T) {
	t.Parallel()
	got := sources([]netip.Prefix{px("192.168.1.77/24"), px("10.1.0.0/16"), px("10.0.0.0/8"), px("192.168.1.0/24"), px("192.168.1.5/32"), px("192.168.0.0/24")})
	require.Equal(t, []netip.Prefix{px("10.0.0.0/8"), px("192.168.0.0/24"), px("192.168.1.0/24")}, got)
}

// FuzzParseConfig checks that what is read says the same when it is written and
// read again, and that every refusal is one line.
func FuzzParseConfig(f *testing.F) {
	f.Add(`{"forwards":[{"name":"web","source":{"addr":"203.0.113.7","port":443},"target":{"addr":"10.59.0.2","prefix":24,"port":8443},"count":2,"protocols":["udp"],"allowFrom":["192.168.7.0/24"],"allowVia":["wg0"]}]}`)
	f.Add(`{"forwards":[]}`)
	f.Add(`{"forwards":[{"name":"a","source":{"addr":"::1","port":1}}]}`)
	f.Fuzz(func(t *testing.T, text string) {
		cfg, err := ParseConfig(strings.NewReader(text))
		if err != nil {
			if !errors.Is(err, ErrInvalid) || strings.Contains(err.Error(), "\n") {
				t.Fatalf("%q: %v", text, err)
			}
			return
		}
		b, err := json.Marshal(cfg)
		if err != nil {
			t.Fatal(err)
		}
		var back Config
		if err := json.Unmarshal(b, &back); err != nil || !cfg.Equal(back) {
			t.Fatalf("%s does not come back: %v", b, err)
		}
	})
}
