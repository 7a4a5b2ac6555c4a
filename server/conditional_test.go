package server_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/selfstead/selfstead/server/api"
)

func TestIdempotencyKey(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	say := func(who, key, title string) answer {
		return l.do(who, "POST", "/v1/notifications", `{"level":"info","title":"`+title+`","message":""}`, "Idempotency-Key", key)
	}
	first := say("user", "k1", "one")
	require.Equal(t, 201, first.status, first.body)
	assert.Empty(t, first.header.Get("Idempotency-Replayed"))
	again := say("user", "k1", "one")
	assert.Equal(t, 201, again.status)
	assert.Equal(t, first.body, again.body)
	assert.Equal(t, first.header.Get("Location"), again.header.Get("Location"))
	assert.Equal(t, first.header.Get("Content-Type"), again.header.Get("Content-Type"))
	assert.Equal(t, "true", again.header.Get("Idempotency-Replayed"))
	other := say("user", "k1", "two")
	assert.Equal(t, 409, other.status)
	assert.Equal(t, "idempotency-key-reused", other.code())
	assert.Contains(t, other.body, "header.Idempotency-Key")
	assert.Equal(t, 422, say("user", strings.Repeat("k", 256), "one").status)
	assert.Equal(t, 401, say("guest", "k1", "one").status, "a key opens nothing")
	refused := say("user", "bad", strings.Repeat("x", 201))
	assert.Equal(t, 422, refused.status)
	assert.Equal(t, "true", l.do("user", "POST", "/v1/notifications", `{"level":"info","title":"`+strings.Repeat("x", 201)+`","message":""}`, "Idempotency-Key", "bad").header.Get("Idempotency-Replayed"), "a refusal is an answer too")

	var wg sync.WaitGroup
	bodies := make([]string, 20)
	for i := range bodies {
		wg.Go(func() { bodies[i] = say("user", "k2", "at once").body })
	}
	wg.Wait()
	for _, b := range bodies {
		assert.Equal(t, bodies[0], b)
	}
	list, _ := walk[api.Notification](t, l, "/v1/notifications")
	assert.Len(t, list, 2, "each key made one")

	huge := l.do("user", "POST", "/v1/notifications", `{"x":"`+strings.Repeat("x", 2<<20)+`"}`, "Idempotency-Key", "huge")
	assert.Equal(t, 413, huge.status, huge.body)

	l.services.finish = make(chan struct{})
	close(l.services.finish)
	up := l.do("user", "POST", "/v1/packages:sideload", "broken!", "Content-Type", "application/octet-stream", "Idempotency-Key", "up")
	assert.Equal(t, 422, up.status)
	assert.Equal(t, "corrupt", up.code())
	assert.Equal(t, up.body, l.do("user", "POST", "/v1/packages:sideload", "broken!", "Content-Type", "application/octet-stream", "Idempotency-Key", "up").body)
}

// TestIfMatch: of many writers that read the same, one writes.
func TestIfMatch(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	const path = "/v1/notification-delivery"
	read := l.do("user", "GET", path, "")
	tag := read.header.Get("ETag")
	require.NotEmpty(t, tag)
	unchanged := l.do("user", "GET", path, "", "If-None-Match", tag)
	assert.Equal(t, 304, unchanged.status)
	assert.Empty(t, unchanged.body)

	var wg sync.WaitGroup
	statuses := make([]int, 8)
	for i := range statuses {
		wg.Go(func() {
			statuses[i] = l.do("user", "PUT", path, fmt.Sprintf(`{"mail":{"to":"a%d@example.org"}}`, i), "If-Match", tag).status
		})
	}
	wg.Wait()
	count := map[int]int{}
	for _, s := range statuses {
		count[s]++
	}
	assert.Equal(t, map[int]int{200: 1, 412: 7}, count)
	a := l.do("user", "PUT", path, `{}`, "If-Match", tag)
	assert.Equal(t, "precondition-failed", a.code())
	assert.Contains(t, a.body, `"fix":{"method":"GET","path":"`+path+`"`)
	assert.Equal(t, 412, l.do("user", "PUT", path, `{}`, "If-Match", "W/"+l.do("user", "GET", path, "").header.Get("ETag")).status, "a weak tag never matches")
	assert.Equal(t, 200, l.do("user", "PUT", path, `{}`, "If-Match", "*").status)
	assert.Equal(t, 412, l.do("user", "DELETE", "/v1/system/smtp", "", "If-Match", "*").status, "there is none")
	assert.Equal(t, 401, l.do("guest", "PUT", path, `{}`, "If-Match", "*").status)
}

func TestPages(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	for i := range 10 {
		p := helloWorld
		p.ID = fmt.Sprintf("p%02d", i)
		require.NoError(t, l.services.put(p))
	}
	all, pages := walk[api.Package](t, l, "/v1/packages?limit=4")
	assert.Equal(t, 3, pages)
	require.Len(t, all, 11)
	for i := 1; i < len(all); i++ {
		assert.Less(t, all[i-1].ID, all[i].ID)
	}
	// What goes meanwhile moves nothing.
	a := l.do("user", "GET", "/v1/packages?limit=2", "")
	link := nextPage.FindStringSubmatch(a.header.Get("Link"))
	require.NotNil(t, link)
	l.services.mu.Lock()
	delete(l.services.packages, decode[[]api.Package](t, a.body)[1].ID)
	l.services.mu.Unlock()
	assert.Equal(t, "p01", decode[[]api.Package](t, l.do("user", "GET", link[1], "").body)[0].ID)
	for _, query := range []string{"limit=0", "limit=1001", "cursor=*", "cursor=A"} {
		assert.Equal(t, 422, l.do("user", "GET", "/v1/packages?"+query, "").status, query)
	}
	for _, path := range []string{"/v1/sessions", "/v1/operations", "/v1/network/forwards", "/v1/packages/hello-world/hosts", "/v1/packages/hello-world/grants", "/v1/packages/hello-world/actions", "/v1/packages/hello-world/tasks"} {
		_, pages := walk[map[string]any](t, l, path+"?limit=1")
		assert.Equal(t, 1, pages, path)
	}
}
