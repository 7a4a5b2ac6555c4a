package effect

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"

	"github.com/selfstead/selfstead/server/state"
)

// checkSSL refuses what addSsl cannot mean (StartOS host bindings).
func checkSSL(o *state.AddSSL) error {
	if o == nil {
		return nil
	}
	var alpn struct {
		Specified *[]json.RawMessage `json:"specified"` // texts, or bytes as lists of numbers
	}
	if word := text(o.ALPN); absent(o.ALPN) || word == "reflect" {
	} else if json.Unmarshal(o.ALPN, &alpn) != nil || alpn.Specified == nil {
		return invalid("addSsl.alpn is neither reflect nor a list of protocols")
	}
	var upstream struct {
		Certificate string `json:"certificate"`
	}
	if word := text(o.UpstreamCertValidation); absent(o.UpstreamCertValidation) || word == "disable" {
	} else if json.Unmarshal(o.UpstreamCertValidation, &upstream) != nil || !isCertificate(upstream.Certificate) {
		return invalid("addSsl.upstreamCertValidation is neither disable nor a certificate")
	}
	var auth struct {
		Type        string    `json:"type"`
		Tokens      *[]string `json:"tokens"`
		Credentials *[]struct {
			Username *string `json:"username"`
			Password *string `json:"password"`
		} `json:"credentials"`
		Realm *string `json:"realm"`
	}
	if absent(o.Auth) {
		return nil
	}
	if err := json.Unmarshal(o.Auth, &auth); err != nil {
		return invalid("addSsl.auth: %s", err)
	}
	switch {
	case auth.Type == "bearer" && auth.Tokens != nil:
		return nil
	case auth.Type == "basic" && auth.Credentials != nil:
		for _, c := range *auth.Credentials {
			if c.Username == nil || c.Password == nil {
				return invalid("addSsl.auth: a credential lacks its username or password")
			}
		}
		return nil
	}
	return invalid("addSsl.auth is neither bearer with tokens nor basic with credentials")
}

func absent(v json.RawMessage) bool { return len(v) == 0 || bytes.Equal(v, []byte("null")) }

func text(v json.RawMessage) (s string) {
	_ = json.Unmarshal(v, &s)
	return s
}

func isCertificate(s string) bool {
	block, _ := pem.Decode([]byte(s))
	if block == nil || block.Type != "CERTIFICATE" {
		return false
	}
	_, err := x509.ParseCertificate(block.Bytes)
	return err == nil
}
