package merkle

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strconv"
)

// MaxUncommittedRoot is the largest signed root table size that is accepted
// when no commitment says otherwise: 1 MiB.
const MaxUncommittedRoot = 1 << 20

// ErrCommitment: an archive that is not the one that was asked for.
var ErrCommitment = errors.New("merkle: archive does not match the commitment")

// Commitment names one tree: what the signature covers, and what registries
// list. Its JSON form is {"rootSighash":"<base64>","rootMaxsize":n}.
type Commitment struct {
	RootSighash Hash   `json:"rootSighash"`
	RootMaxsize uint64 `json:"rootMaxsize"`
}

// Message is the 40 bytes that are signed.
func (c Commitment) Message() []byte {
	return binary.BigEndian.AppendUint64(append([]byte(nil), c.RootSighash[:]...), c.RootMaxsize)
}

// Accepts says whether an archive with the header values of got is the one c
// asks for: the same sighash, and a bound that is not above c's.
func (c Commitment) Accepts(got Commitment) error {
	if c.RootSighash != got.RootSighash {
		return fmt.Errorf("%w: root is %s, wanted %s", ErrCommitment, got.RootSighash, c.RootSighash)
	}
	if got.RootMaxsize > c.RootMaxsize {
		return fmt.Errorf("%w: root table may take %d bytes, commitment allows %d", ErrCommitment, got.RootMaxsize, c.RootMaxsize)
	}
	return nil
}

// String is the JSON text.
func (c Commitment) String() string {
	b, _ := json.Marshal(c) // two plain fields cannot fail
	return string(b)
}

// UnmarshalJSON demands both fields.
func (c *Commitment) UnmarshalJSON(b []byte) error {
	var v struct {
		RootSighash *Hash   `json:"rootSighash"`
		RootMaxsize *uint64 `json:"rootMaxsize"`
	}
	if err := json.Unmarshal(b, &v); err != nil {
		return fmt.Errorf("merkle: commitment: %w", err)
	}
	if v.RootSighash == nil || v.RootMaxsize == nil {
		return errors.New("merkle: commitment needs rootSighash and rootMaxsize")
	}
	c.RootSighash, c.RootMaxsize = *v.RootSighash, *v.RootMaxsize
	return nil
}

// Query is the form that is appended to a package's URL.
func (c Commitment) Query() url.Values {
	text, _ := c.RootSighash.MarshalText()
	return url.Values{
		"rootSighash": {string(text)},
		"rootMaxsize": {strconv.FormatUint(c.RootMaxsize, 10)},
	}
}

// CommitmentFromQuery reads what Query writes. It returns nil when neither
// parameter is there, and an error when only one is.
func CommitmentFromQuery(q url.Values) (*Commitment, error) {
	hasHash, hasSize := q.Has("rootSighash"), q.Has("rootMaxsize")
	if !hasHash && !hasSize {
		return nil, nil
	}
	if hasHash != hasSize {
		return nil, errors.New("merkle: rootSighash and rootMaxsize go together")
	}
	var c Commitment
	if err := c.RootSighash.UnmarshalText([]byte(q.Get("rootSighash"))); err != nil {
		return nil, err
	}
	n, err := strconv.ParseUint(q.Get("rootMaxsize"), 10, 64)
	if err != nil {
		return nil, fmt.Errorf("merkle: rootMaxsize %.30q is not a number", q.Get("rootMaxsize"))
	}
	c.RootMaxsize = n
	return &c, nil
}
