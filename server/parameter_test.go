package server_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestRepeatedParameters(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	for query, status := range map[string]int{
		"limit=1":          200,
		"limit=1&limit=2":  422,
		"limit=&limit=x":   422,
		"cursor=&cursor=":  422,
		"limit=1&unread=1": 200,
	} {
		a := l.do("user", "GET", "/v1/network/forwards?"+query, "")
		assert.Equal(t, status, a.status, query)
		if status == 422 {
			assert.Equal(t, "invalid", a.code(), query)
			assert.Contains(t, a.body, "more than one value")
		}
	}
	assert.Equal(t, 401, l.do("guest", "GET", "/v1/network/forwards?limit=1&limit=2", "").status, "strangers learn nothing of it")
}
