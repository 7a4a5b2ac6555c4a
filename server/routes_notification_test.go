package server_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"regexp"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/selfstead/selfstead/server/api"
)

var nextPage = regexp.MustCompile(`^<([^>]+)>; rel="next"$`)

// walk reads a list page by page.
func walk[T any](t *testing.T, l *lab, path string) (out []T, pages int) {
	t.Helper()
	for path != "" {
		a := l.do("user", "GET", path, "")
		require.Equal(t, 200, a.status, a.body)
		out = append(out, decode[[]T](t, a.body)...)
		pages++
		m := nextPage.FindStringSubmatch(a.header.Get("Link"))
		if path = ""; m != nil {
			path = m[1]
		}
	}
	return out, pages
}

func TestNotifications(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	e := l.open("user", "/v1/notifications/events")
	for _, level := range []string{"info", "warning", "error"} {
		a := l.do("user", "POST", "/v1/notifications", `{"level":"`+level+`","title":"`+level+`","message":"m"}`)
		require.Equal(t, 201, a.status, a.body)
		require.Equal(t, 200, l.do("user", "GET", a.header.Get("Location"), "").status)
	}
	for _, want := range []string{"1", "2", "3"} {
		ev, err := e.read()
		require.NoError(t, err)
		assert.Equal(t, want, ev.id)
	}
	again := l.open("user", "/v1/notifications/events", "Last-Event-ID", "2")
	ev, err := again.read()
	require.NoError(t, err)
	assert.Equal(t, "3", ev.id, "a stream goes on where it broke off")

	all, pages := walk[api.Notification](t, l, "/v1/notifications?limit=2&unread=true")
	assert.Equal(t, 2, pages)
	require.Len(t, all, 3)
	assert.EqualValues(t, 3, all[0].ID, "the newest first")
	assert.Contains(t, l.do("user", "PATCH", "/v1/notifications/3", `{"seen":true}`).body, `"seen":true`)
	assert.JSONEq(t, `{"changed":2}`, l.do("user", "POST", "/v1/notifications:mark", `{"through":3,"seen":true}`).body)
	assert.JSONEq(t, `[]`, l.do("user", "GET", "/v1/notifications?unread=true", "").body)
	assert.Equal(t, 404, l.do("user", "POST", "/v1/notifications:delete", `{"ids":[1,77]}`).status)
	assert.Equal(t, 204, l.do("user", "DELETE", "/v1/notifications/1", "").status)
	assert.JSONEq(t, `{"changed":2}`, l.do("user", "POST", "/v1/notifications:delete", `{"through":9}`).body)
	assert.Equal(t, 404, l.do("user", "GET", "/v1/notifications/3", "").status)
	assert.Equal(t, 422, l.do("user", "GET", "/v1/notifications/events", "", "Last-Event-ID", "x").status)
}

func TestDelivery(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	got := make(chan map[string]any, 1)
	hook := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var m map[string]any
		json.NewDecoder(r.Body).Decode(&m) //nolint:errcheck // the test sees
		got <- m
	}))
	defer hook.Close()
	a := l.do("user", "PUT", "/v1/notification-delivery", `{"webhook":{"url":"`+hook.URL+`","secret":"quite secret"}}`)
	require.Equal(t, 200, a.status, a.body)
	assert.NotContains(t, a.body, "quite secret")
	assert.Contains(t, a.body, `"secretSet":true`)
	assert.NotContains(t, l.do("user", "GET", "/v1/state", "").body, "quite secret")
	l.do("user", "POST", "/v1/notifications", `{"level":"error","title":"fire","message":"m"}`)
	assert.Equal(t, "fire", (<-got)["title"])
	for body, field := range map[string]string{
		`{"webhook":{"url":"ftp://x"}}`:      "body.webhook.url",
		`{"webhook":{"url":"http://u:p@x"}}`: "body.webhook.url",
		`{"mail":{"to":"nobody"}}`:           "body.mail.to",
	} {
		a := l.do("user", "PUT", "/v1/notification-delivery", body)
		assert.Equal(t, 422, a.status, body)
		assert.Contains(t, a.body, field)
	}
	a = l.do("user", "POST", "/v1/system/smtp:test", `{"to":"a@example.org"}`)
	assert.Equal(t, 404, a.status)
	assert.Contains(t, a.body, `"path":"/v1/system/smtp"`, "it says what helps")
	a = l.do("user", "POST", "/v1/system/smtp:test", `{"to":"a@example.org","server":{"host":"127.0.0.1","port":1,"from":"a@example.org","username":""}}`)
	assert.Equal(t, 422, a.status)
	assert.Equal(t, "mail-failed", a.code())
	assert.JSONEq(t, `{}`, l.do("user", "PUT", "/v1/notification-delivery", `{}`).body)
}
