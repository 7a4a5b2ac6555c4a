package image

import (
	"context"
	"testing"
	"time"
)

func TestBuildReal(t *testing.T) {
	start := time.Now()
	f, err := Build(context.Background(), Options{Cache: "/tmp/lxw/cache", Progress: func(p Progress) { t.Log(time.Since(start).Round(time.Millisecond), p) }})
	t.Log(f, err)
}
