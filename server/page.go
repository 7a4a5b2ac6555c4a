package server

import (
	"cmp"
	"context"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/selfstead/selfstead/server/problem"
)

// pageInput chooses a part of a list.
type pageInput struct {
	Limit  int    `query:"limit" minimum:"1" maximum:"1000" default:"200" doc:"most items to return"`
	Cursor string `query:"cursor" maxLength:"1200" pattern:"^([0-9a-f]{2})*$" patternDescription:"cursor of a Link header" doc:"where to go on: the one that the Link header of the page before names"`
}

func (in *packagePageInput) page() pageInput { return pageInput{in.Limit, in.Cursor} }

// list is one page of a list.
type list[T any] struct {
	Link string `header:"Link" doc:"the next page, as RFC 8288 has it with rel=\"next\"; left out on the last one"`
	Body []T
}

// paged cuts a page out of items. key says where an item stands: the list is in
// the order of the keys, from the highest down with descending. A page begins
// after the key of its cursor, whatever came and went meanwhile.
func paged[T any](ctx context.Context, in pageInput, items []T, descending bool, key func(T) string) (*list[T], error) {
	items = slices.Clone(items)
	slices.SortStableFunc(items, func(a, b T) int {
		if descending {
			a, b = b, a
		}
		return cmp.Compare(key(a), key(b))
	})
	if in.Cursor != "" {
		text, err := hex.DecodeString(in.Cursor)
		if err != nil {
			return nil, problem.New(http.StatusUnprocessableEntity, problem.CodeInvalid, "that is not a cursor of this list").
				WithField("query.cursor", "not a cursor", nil)
		}
		after := string(text)
		items = slices.DeleteFunc(items, func(item T) bool {
			if descending {
				return key(item) >= after
			}
			return key(item) <= after
		})
	}
	out := &list[T]{Body: items}
	if out.Body == nil {
		out.Body = []T{}
	}
	if in.Limit > 0 && len(items) > in.Limit {
		out.Body = items[:in.Limit]
		out.Link = nextLink(ctx, "cursor", hex.EncodeToString([]byte(key(items[in.Limit-1]))), in.Limit)
	}
	return out, nil
}

// nextLink is the Link header of the page after this one: the same request with
// another place to begin at.
func nextLink(ctx context.Context, name, value string, limit int) string {
	req := info(ctx)
	q, _ := url.ParseQuery(req.query)
	q.Set(name, value)
	q.Set("limit", strconv.Itoa(limit))
	u := url.URL{Path: req.path, RawQuery: q.Encode()}
	return "<" + strings.ReplaceAll(u.String(), ">", "%3E") + `>; rel="next"`
}

// timeKey is a time as a key.
func timeKey(t time.Time, id string) string { return fmt.Sprintf("%020d %s", t.UnixNano(), id) }
