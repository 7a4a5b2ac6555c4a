package server

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestIntegral(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		`{"a":5.0,"b":[1.00,2.50,3.05,-7.0]}`: `{"a":5,"b":[1,2.50,3.05,-7]}`,
		`"5.0"`:                               `"5.0"`,
		`["\"5.0", 6.0]`:                      `["\"5.0", 6]`,
		`1.0e3`:                               `1.0e3`,
		`5.`:                                  `5.`,
		`.0`:                                  `.0`,
		`"unfinished 5.0`:                     `"unfinished 5.0`,
		`0.0`:                                 `0`,
		`{"price":19.90,"n":0}`:               `{"price":19.90,"n":0}`,
	} {
		assert.Equal(t, want, string(integral([]byte(in))), in)
	}
}
