package state

import "encoding/json"

// Host is a set of bindings of one package (StartOS data model, Host).
type Host struct {
	Bindings       map[string]Binding      `json:"bindings"`      // key: internal port, decimal
	BindingRanges  map[string]BindingRange `json:"bindingRanges"` // key: internal start port
	PublicDomains  map[string]any          `json:"publicDomains"`
	PrivateDomains map[string]any          `json:"privateDomains"`
	PortForwards   []PortForward           `json:"portForwards"`
}

// NewHost is a host without bindings; every member is present, as clients of
// the model expect.
func NewHost() Host {
	return Host{
		Bindings: map[string]Binding{}, BindingRanges: map[string]BindingRange{},
		PublicDomains: map[string]any{}, PrivateDomains: map[string]any{}, PortForwards: []PortForward{},
	}
}

// PortForward is advice for the router before the server.
type PortForward struct {
	Src     string `json:"src"`
	Dst     string `json:"dst"`
	Gateway string `json:"gateway"`
	Count   int    `json:"count"`
}

// Binding is one internal port that a package publishes.
type Binding struct {
	Enabled    bool                        `json:"enabled"`
	Options    BindOptions                 `json:"options"`
	Net        NetInfo                     `json:"net"`
	Addresses  Addresses                   `json:"addresses"`
	Interfaces map[string]ServiceInterface `json:"interfaces"`
}

// BindOptions is what the package asked for.
type BindOptions struct {
	PreferredExternalPort uint16    `json:"preferredExternalPort"`
	AddSSL                *AddSSL   `json:"addSsl"`
	Secure                *Security `json:"secure"`
}

// Security says how the service's own protocol is protected; nil is plain text.
type Security struct {
	SSL bool `json:"ssl"`
}

// AddSSL asks the server to put TLS before the binding.
type AddSSL struct {
	PreferredExternalPort  uint16          `json:"preferredExternalPort"`
	AddXForwardedHeaders   bool            `json:"addXForwardedHeaders"`
	ALPN                   json.RawMessage `json:"alpn"`
	UpstreamCertValidation json.RawMessage `json:"upstreamCertValidation,omitempty"`
	Auth                   json.RawMessage `json:"auth"`
}

// NetInfo holds the outside ports that a binding was given.
type NetInfo struct {
	AssignedPort    *uint16 `json:"assignedPort"`
	AssignedSSLPort *uint16 `json:"assignedSslPort"`
}

// BindingRange is a run of ports published as one.
type BindingRange struct {
	Enabled           bool            `json:"enabled"`
	ExternalStartPort uint16          `json:"externalStartPort"`
	NumberOfPorts     int             `json:"numberOfPorts"` // 2 to 500
	Addresses         Addresses       `json:"addresses"`
	Interface         *RangeInterface `json:"interface"`
}

// RangeInterface describes what a range serves.
type RangeInterface struct {
	ID          string  `json:"id"`
	Name        string  `json:"name"`
	Description string  `json:"description"`
	Scheme      *string `json:"scheme"`
}

// Addresses are the places where a binding can be reached.
type Addresses struct {
	Enabled   []string          `json:"enabled"`   // ip:port, opt-in
	Disabled  [][2]any          `json:"disabled"`  // [hostname, port], opt-out
	Available []HostnameInfo    `json:"available"` // computed
	GuaAccess map[string]string `json:"guaAccess"`
}

// NewAddresses is the empty value with every member present.
func NewAddresses() Addresses {
	return Addresses{Enabled: []string{}, Disabled: [][2]any{}, Available: []HostnameInfo{}, GuaAccess: map[string]string{}}
}

// HostnameInfo is one address of a binding.
type HostnameInfo struct {
	SSL      bool             `json:"ssl"`
	Public   bool             `json:"public"`
	Hostname string           `json:"hostname"`
	Port     *uint16          `json:"port"`
	Metadata HostnameMetadata `json:"metadata"`
}

// KindPlugin is the kind of an address that another package provides.
const KindPlugin = "plugin"

// HostnameMetadata says where an address comes from.
type HostnameMetadata struct {
	Kind    string `json:"kind"` // "ipv4", "ipv6" or KindPlugin
	Gateway string `json:"gateway"`
	ScopeID *int   `json:"scopeId,omitempty"`

	// Of KindPlugin alone: the package that provides it, its actions that remove
	// it and that go with it, and what it keeps of it.
	PackageID       string          `json:"packageId"`
	RemoveAction    *string         `json:"removeAction"`
	OverflowActions []string        `json:"overflowActions"`
	Info            json.RawMessage `json:"info"`
}

// MarshalJSON writes the members of the kind.
func (m HostnameMetadata) MarshalJSON() ([]byte, error) {
	if m.Kind != KindPlugin {
		return json.Marshal(struct {
			Kind    string `json:"kind"`
			Gateway string `json:"gateway"`
			ScopeID *int   `json:"scopeId,omitempty"`
		}{m.Kind, m.Gateway, m.ScopeID})
	}
	overflow := m.OverflowActions
	if overflow == nil {
		overflow = []string{}
	}
	return json.Marshal(struct {
		Kind            string          `json:"kind"`
		PackageID       string          `json:"packageId"`
		RemoveAction    *string         `json:"removeAction"`
		OverflowActions []string        `json:"overflowActions"`
		Info            json.RawMessage `json:"info"`
	}{m.Kind, m.PackageID, m.RemoveAction, overflow, m.Info})
}

// ServiceInterface is what a package says of a binding to its users.
type ServiceInterface struct {
	ID          string      `json:"id"`
	Name        string      `json:"name"`
	Description string      `json:"description"`
	Masked      bool        `json:"masked"`
	AddressInfo AddressInfo `json:"addressInfo"`
	Type        string      `json:"type"` // "ui", "p2p" or "api"
}

// AddressInfo ties an interface to its binding.
type AddressInfo struct {
	Username     *string `json:"username"`
	HostID       string  `json:"hostId"`
	InternalPort uint16  `json:"internalPort"`
	Scheme       *string `json:"scheme"`
	SSLScheme    *string `json:"sslScheme"`
	Suffix       string  `json:"suffix"`
}
