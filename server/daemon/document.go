package daemon

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"strings"

	"github.com/selfstead/selfstead/patchdb"
	"github.com/selfstead/selfstead/server/state"
)

// identity is what the document says of the server itself.
type identity struct {
	id               string
	subnet4, subnet6 netip.Prefix
}

// tag is the part of shared names that is this server's own.
func (i identity) tag() string {
	sum := sha256.Sum256([]byte(i.id))
	return hex.EncodeToString(sum[:])[:8]
}

// prepare gives a new document its beginning and an old one what this version
// of the program says of itself. All of it is one revision.
func prepare(ctx context.Context, db *patchdb.DB, version string) (identity, error) {
	var out identity
	hostname, err := os.Hostname()
	if err != nil {
		return out, fmt.Errorf("daemon: host name: %w", err)
	}
	_, err = db.Update(ctx, func(tx *patchdb.Tx) error {
		if !tx.Exists(state.ServerInfo) {
			v4, v6, err := pickSubnets()
			if err != nil {
				return err
			}
			doc := state.New()
			doc.Public.ServerInfo = state.Server{ID: strings.ToLower(rand.Text()), Network: state.Network{Gateways: map[string]state.Gateway{}}}
			doc.Private.Subnet4, doc.Private.Subnet6 = v4.String(), v6.String()
			if err := tx.Put("", doc); err != nil {
				return err
			}
		}
		info, err := patchdb.TxGet[state.Server](tx, state.ServerInfo)
		if err != nil {
			return err
		}
		account, err := patchdb.TxGet[state.Account](tx, state.PrivatePointer("account"))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		for name, value := range map[string]any{"version": version, "hostname": hostname, "claimed": account.PasswordHash != ""} {
			if err := tx.Put(patchdb.Join(state.ServerInfo, name), value); err != nil {
				return err
			}
		}
		out.id = info.ID
		for name, p := range map[string]*netip.Prefix{"subnet4": &out.subnet4, "subnet6": &out.subnet6} {
			text, err := patchdb.TxGet[string](tx, state.PrivatePointer(name))
			if err != nil {
				return err
			}
			if *p, err = netip.ParsePrefix(text); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return out, fmt.Errorf("daemon: the server's part of the document: %w", err)
	}
	return out, nil
}
