package system

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/selfstead/selfstead/patchdb"
	"github.com/selfstead/selfstead/server/problem"
	"github.com/selfstead/selfstead/server/state"
)

// maxKeys bounds the SSH keys.
const maxKeys = 100

// Marks around our lines in a file of SSH keys.
const (
	beginMark = "# selfstead: begin (these lines are written by the server)\n"
	endMark   = "# selfstead: end\n"
)

// Key is one SSH key that may come in.
type Key struct {
	ID          string // SHA-256 of the key, hex
	Algorithm   string
	Fingerprint string // as ssh-keygen -l shows it
	Comment     string
	Added       time.Time
}

func (m *Manager) keys() (map[string]state.SSHKey, error) {
	keys, err := patchdb.Get[map[string]state.SSHKey](m.o.DB, state.SSHKeysPointer)
	if errors.Is(err, fs.ErrNotExist) {
		return map[string]state.SSHKey{}, nil
	}
	return keys, err
}

// Keys lists the SSH keys, the oldest first.
func (m *Manager) Keys() ([]Key, error) {
	keys, err := m.keys()
	if err != nil {
		return nil, fmt.Errorf("system: %w", err)
	}
	out := []Key{}
	for id, k := range keys {
		v, err := view(id, k)
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	slices.SortFunc(out, func(a, b Key) int {
		if c := a.Added.Compare(b.Added); c != 0 {
			return c
		}
		return cmp.Compare(a.ID, b.ID)
	})
	return out, nil
}

func view(id string, k state.SSHKey) (Key, error) {
	pub, comment, _, _, err := ssh.ParseAuthorizedKey([]byte(k.Line))
	if err != nil {
		return Key{}, fmt.Errorf("system: stored SSH key %s: %w", id, err)
	}
	return Key{ID: id, Algorithm: pub.Type(), Fingerprint: ssh.FingerprintSHA256(pub), Comment: comment, Added: k.Added}, nil
}

// AddKey lets one more key in: a line as ssh-keygen writes it, without options.
// One that is there already stays as it is.
func (m *Manager) AddKey(ctx context.Context, line string) (Key, error) {
	refuse := func(why string) (Key, error) {
		return Key{}, problem.New(http.StatusUnprocessableEntity, problem.CodeInvalid, why).WithField("body.key", why, nil)
	}
	pub, comment, options, rest, err := ssh.ParseAuthorizedKey([]byte(line))
	switch {
	case err != nil:
		return refuse("that is no SSH public key")
	case len(options) > 0:
		return refuse("the key must come without options")
	case len(bytes.TrimSpace(rest)) > 0:
		return refuse("that is more than one line")
	case strings.ContainsFunc(comment, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return refuse("its comment has control characters")
	case pub.Type() == "ssh-dss":
		return refuse("DSA keys are not accepted any more")
	}
	sum := sha256.Sum256(pub.Marshal())
	id := hex.EncodeToString(sum[:])
	text := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(pub)))
	if comment != "" {
		text += " " + comment
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	key := state.SSHKey{Line: text, Added: time.Now().UTC()}
	_, err = m.o.DB.Update(ctx, func(tx *patchdb.Tx) error {
		at := patchdb.Join(state.SSHKeysPointer, id)
		if was, err := patchdb.TxGet[state.SSHKey](tx, at); err == nil {
			key = was
			return nil
		}
		if n, err := tx.Len(state.SSHKeysPointer); err == nil && n >= maxKeys {
			return problem.Newf(http.StatusConflict, problem.CodeConflict, "there are %d SSH keys, no more are allowed", maxKeys)
		}
		return tx.PutAll(at, key)
	})
	if err != nil {
		return Key{}, err
	}
	if err := m.writeKeysLocked(); err != nil {
		return Key{}, err
	}
	return view(id, key)
}

// RemoveKey lets a key in no more.
func (m *Manager) RemoveKey(ctx context.Context, id string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, err := m.o.DB.Update(ctx, func(tx *patchdb.Tx) error {
		at := patchdb.Join(state.SSHKeysPointer, id)
		if !tx.Exists(at) {
			return problem.NotFound("SSH key", id)
		}
		return tx.Remove(at)
	})
	if err != nil {
		return err
	}
	return m.writeKeysLocked()
}

// writeKeysLocked makes our lines in the file match the document; those of
// others stay.
func (m *Manager) writeKeysLocked() error {
	path := m.o.AuthorizedKeys
	if path == "" {
		return nil
	}
	keys, err := m.keys()
	if err != nil {
		return fmt.Errorf("system: %w", err)
	}
	was, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("system: SSH keys: %w", err)
	}
	text := string(was)
	if before, after, ok := strings.Cut(text, beginMark); ok {
		_, after, _ = strings.Cut(after, endMark)
		text = before + after
	}
	if text != "" && !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	if len(keys) > 0 {
		lines := []string{}
		for _, k := range keys {
			lines = append(lines, k.Line+"\n")
		}
		slices.Sort(lines)
		text += beginMark + strings.Join(lines, "") + endMark
	}
	if text == string(was) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("system: SSH keys: %w", err)
	}
	if err := replace(path, []byte(text), 0o600); err != nil {
		return fmt.Errorf("system: SSH keys: %w", err)
	}
	return nil
}
