package account

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// codeLetters is the length of a claim code without its hyphens: 80 bits.
const codeLetters = 16

// newCode is a code such as "MFRA-2QKX-NB4T-WLCE".
func newCode() string {
	t := rand.Text()[:codeLetters]
	return t[:4] + "-" + t[4:8] + "-" + t[8:12] + "-" + t[12:]
}

// plainCode drops what people add or leave out when they type a code.
func plainCode(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '-' || r == ' ' || r == '\t' || r == '\n' || r == '\r':
			return -1
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		}
		return r
	}, s)
}

// sameCode compares in time that depends on neither.
func sameCode(a, b string) bool {
	x, y := sha256.Sum256([]byte(plainCode(a))), sha256.Sum256([]byte(plainCode(b)))
	return subtle.ConstantTimeCompare(x[:], y[:]) == 1
}

// openCode reads the code from file, or makes one and stores it there so that
// it is the same after a restart. Only the file's owner can read it.
func openCode(file string) (string, error) {
	f, err := os.Open(file)
	if err == nil {
		defer f.Close()
		text, err := io.ReadAll(io.LimitReader(f, 256))
		if err != nil {
			return "", fmt.Errorf("account: read the claim code: %w", err)
		}
		if code := strings.TrimSpace(string(text)); len(plainCode(code)) == codeLetters {
			return code, nil
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("account: open the claim code: %w", err)
	}
	code := newCode()
	if err := writeFile(file, code+"\n"); err != nil {
		return "", fmt.Errorf("account: write the claim code: %w", err)
	}
	return code, nil
}

// writeFile replaces file as a whole: nobody sees half a code.
func writeFile(file, text string) error {
	tmp, err := os.CreateTemp(filepath.Dir(file), "."+filepath.Base(file)+"-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.WriteString(text)
	err = errors.Join(err, tmp.Sync(), tmp.Close())
	if err != nil {
		return err
	}
	return os.Rename(tmp.Name(), file)
}

func removeFile(file string) error {
	if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("account: remove the claim code: %w", err)
	}
	return nil
}
