package service_test

import (
	"encoding/json"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/selfstead/selfstead/server/authority"
	"github.com/stretchr/testify/require"
)

// shortLived is the server's authority with a first certificate that is due at
// once; from then on its clock is most of a year ahead, so that it is renewed.
type shortLived struct {
	*authority.Authority
	mu    sync.Mutex
	ahead time.Duration
}

func newShortLived(dir string) (*shortLived, error) {
	s := &shortLived{}
	var err error
	s.Authority, err = authority.Open(authority.Options{Dir: dir, Now: s.now})
	return s, err
}

func (s *shortLived) now() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Now().Add(s.ahead)
}

func (s *shortLived) Issue(names []string, algorithm string) (*authority.Issued, error) {
	got, err := s.Authority.Issue(names, algorithm)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil && s.ahead == 0 {
		s.ahead = time.Until(got.Renew) + time.Hour
		got.Renew = time.Now().Add(500 * time.Millisecond)
	}
	return got, err
}

// A service that watches its certificate is told when it is due and then gets
// the next one, for the same key.
func TestCertificateRenewal(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.start("SERVICE_RENEW=1")
	l.install(build(t, testPackage{ID: "alpha", Port: 18080, Code: map[string]any{"certificate": true}}))
	l.await("the renewal", 20*time.Second, func() bool { return strings.Count(l.volume("alpha", "certificates"), "\n") == 2 })
	var seen []struct {
		Until time.Time
		Key   string
	}
	for line := range strings.Lines(l.volume("alpha", "certificates")) {
		seen = append(seen, struct {
			Until time.Time
			Key   string
		}{})
		require.NoError(t, json.Unmarshal([]byte(line), &seen[len(seen)-1]))
	}
	require.Greater(t, seen[1].Until.Sub(seen[0].Until), 60*24*time.Hour)
	require.Equal(t, seen[0].Key, seen[1].Key)
}
