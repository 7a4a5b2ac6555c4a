package server

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"

	"github.com/selfstead/selfstead/server/journal"
	"github.com/selfstead/selfstead/server/problem"
)

type (
	logInput struct {
		ID       string `path:"id" maxLength:"200" doc:"id of the package" example:"hello-world"`
		Limit    int    `query:"limit" minimum:"1" maximum:"1000" default:"50" doc:"most entries to return"`
		Cursor   string `query:"cursor" pattern:"^([0-7]?[0-9a-f]{1,15}\\.[0-7]?[0-9a-f]{1,15})?$" patternDescription:"cursor of an entry" doc:"return what follows this place; without it, the newest entries"`
		Before   bool   `query:"before" doc:"with cursor: return what precedes it"`
		Stream   string `query:"stream" enum:"stdout,stderr,console" doc:"only what came by this"`
		Contains string `query:"contains" maxLength:"200" doc:"only entries with this text in them"`
		Since    string `query:"since" pattern:"^([0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,9})?Z)?$" patternDescription:"time in UTC (RFC 3339)" doc:"only entries from this time on"`
		Until    string `query:"until" pattern:"^([0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,9})?Z)?$" patternDescription:"time in UTC (RFC 3339)" doc:"only entries of before this time"`
	}
	logEventsInput struct {
		ID          string `path:"id" maxLength:"200" doc:"id of the package" example:"hello-world"`
		Limit       int    `query:"limit" minimum:"0" maximum:"1000" default:"50" doc:"entries of the past to begin with; not with a cursor"`
		Cursor      string `query:"cursor" pattern:"^([0-7]?[0-9a-f]{1,15}\\.[0-7]?[0-9a-f]{1,15})?$" patternDescription:"cursor of an entry" doc:"begin with what follows this place"`
		LastEventID string `header:"Last-Event-ID" doc:"as cursor, and goes before it"`
		Stream      string `query:"stream" enum:"stdout,stderr,console" doc:"only what came by this"`
		Contains    string `query:"contains" maxLength:"200" doc:"only entries with this text in them"`
	}
	logFileInput struct {
		ID       string `path:"id" maxLength:"200" doc:"id of the package" example:"hello-world"`
		Format   string `query:"format" enum:"text,json" default:"text" doc:"text: time, stream and message; json: one object a line"`
		Stream   string `query:"stream" enum:"stdout,stderr,console" doc:"only what came by this"`
		Contains string `query:"contains" maxLength:"200" doc:"only entries with this text in them"`
		Since    string `query:"since" pattern:"^([0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,9})?Z)?$" patternDescription:"time in UTC (RFC 3339)" doc:"only entries from this time on"`
		Until    string `query:"until" pattern:"^([0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,9})?Z)?$" patternDescription:"time in UTC (RFC 3339)" doc:"only entries of before this time"`
	}
)

// The same for the server's own log, which has one stream.
type (
	serverLogInput struct {
		Limit    int    `query:"limit" minimum:"1" maximum:"1000" default:"50" doc:"most entries to return"`
		Cursor   string `query:"cursor" pattern:"^([0-7]?[0-9a-f]{1,15}\\.[0-7]?[0-9a-f]{1,15})?$" patternDescription:"cursor of an entry" doc:"return what follows this place; without it, the newest entries"`
		Before   bool   `query:"before" doc:"with cursor: return what precedes it"`
		Contains string `query:"contains" maxLength:"200" doc:"only entries with this text in them"`
		Since    string `query:"since" pattern:"^([0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,9})?Z)?$" patternDescription:"time in UTC (RFC 3339)" doc:"only entries from this time on"`
		Until    string `query:"until" pattern:"^([0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,9})?Z)?$" patternDescription:"time in UTC (RFC 3339)" doc:"only entries of before this time"`
	}
	serverLogEventsInput struct {
		Limit       int    `query:"limit" minimum:"0" maximum:"1000" default:"50" doc:"entries of the past to begin with; not with a cursor"`
		Cursor      string `query:"cursor" pattern:"^([0-7]?[0-9a-f]{1,15}\\.[0-7]?[0-9a-f]{1,15})?$" patternDescription:"cursor of an entry" doc:"begin with what follows this place"`
		LastEventID string `header:"Last-Event-ID" doc:"as cursor, and goes before it"`
		Contains    string `query:"contains" maxLength:"200" doc:"only entries with this text in them"`
	}
	serverLogFileInput struct {
		Format   string `query:"format" enum:"text,json" default:"text" doc:"text: time, stream and message; json: one object a line"`
		Contains string `query:"contains" maxLength:"200" doc:"only entries with this text in them"`
		Since    string `query:"since" pattern:"^([0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,9})?Z)?$" patternDescription:"time in UTC (RFC 3339)" doc:"only entries from this time on"`
		Until    string `query:"until" pattern:"^([0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,9})?Z)?$" patternDescription:"time in UTC (RFC 3339)" doc:"only entries of before this time"`
	}
)

func (s *Server) logRoutes() {
	missing := []int{http.StatusNotFound}
	const paging = "Oldest first. Page on with `endCursor`, back with `startCursor` and `before`. A page of what is filtered may be short, or empty with cursors: there is more behind them."
	add(s, huma.Operation{
		OperationID: "read-log", Method: http.MethodGet, Path: "/v1/packages/{id}/logs", Tags: []string{tagLogs},
		Errors: missing, Summary: "Read a package's log", Description: paging,
	}, func(_ context.Context, in *logInput) (*body[journal.Page], error) {
		log, err := s.deps.Services.Logs(in.ID)
		if err != nil {
			return nil, err
		}
		return readLog(log, *in)
	})
	addStream(s, huma.Operation{
		OperationID: "follow-log", Path: "/v1/packages/{id}/logs/events", Tags: []string{tagLogs},
		Errors: missing, Summary: "Follow a package's log",
		Description: "The newest entries first, then each as it is written. The id of an event is its cursor.",
	}, []event{{"log", "one entry", journal.Entry{}}}, func(_ context.Context, in *logEventsInput) (runFunc, error) {
		log, err := s.deps.Services.Logs(in.ID)
		if err != nil {
			return nil, err
		}
		return followLog(log, *in)
	})
	addLogFile(s, huma.Operation{
		OperationID: "download-log", Path: "/v1/packages/{id}/logs/file", Errors: missing, Summary: "Download a package's log",
	}, func(in *logFileInput) (*journal.Log, string, logFileInput, error) {
		log, err := s.deps.Services.Logs(in.ID)
		return log, in.ID, *in, err
	})
	if s.deps.ServerLog == nil {
		return
	}
	add(s, huma.Operation{
		OperationID: "read-server-log", Method: http.MethodGet, Path: "/v1/system/logs", Tags: []string{tagLogs},
		Summary: "Read the server's own log", Description: paging,
	}, func(_ context.Context, in *serverLogInput) (*body[journal.Page], error) {
		return readLog(s.deps.ServerLog, logInput{Limit: in.Limit, Cursor: in.Cursor, Before: in.Before, Contains: in.Contains, Since: in.Since, Until: in.Until})
	})
	addStream(s, huma.Operation{
		OperationID: "follow-server-log", Path: "/v1/system/logs/events", Tags: []string{tagLogs}, Summary: "Follow the server's own log",
		Description: "The newest entries first, then each as it is written. The id of an event is its cursor.",
	}, []event{{"log", "one entry", journal.Entry{}}}, func(_ context.Context, in *serverLogEventsInput) (runFunc, error) {
		return followLog(s.deps.ServerLog, logEventsInput{Limit: in.Limit, Cursor: in.Cursor, LastEventID: in.LastEventID, Contains: in.Contains})
	})
	addLogFile(s, huma.Operation{
		OperationID: "download-server-log", Path: "/v1/system/logs/file", Summary: "Download the server's own log",
	}, func(in *serverLogFileInput) (*journal.Log, string, logFileInput, error) {
		return s.deps.ServerLog, "selfstead", logFileInput{Format: in.Format, Contains: in.Contains, Since: in.Since, Until: in.Until}, nil
	})
}

// logFilter chooses entries.
type logFilter struct {
	stream, contains string
	since, until     time.Time
}

func newFilter(stream, contains, since, until string) (logFilter, error) {
	f := logFilter{stream: stream, contains: contains}
	for _, x := range []struct {
		name, text string
		into       *time.Time
	}{{"since", since, &f.since}, {"until", until, &f.until}} {
		if x.text == "" {
			continue
		}
		at, err := time.Parse(time.RFC3339Nano, x.text)
		if err != nil { // the pattern lets the 30th of February through, which is the 2nd of March
			var year, month, day, hour, minute, second int
			if _, err := fmt.Sscanf(x.text, "%4d-%2d-%2dT%2d:%2d:%2d", &year, &month, &day, &hour, &minute, &second); err != nil {
				return f, problem.New(http.StatusUnprocessableEntity, problem.CodeInvalid, "a time looks like 2026-01-02T03:04:05Z").WithField("query."+x.name, "not a time", x.text)
			}
			at = time.Date(year, time.Month(month), day, hour, minute, second, 0, time.UTC)
		}
		*x.into = at
	}
	return f, nil
}

func (f logFilter) none() bool { return f == logFilter{} }

func (f logFilter) match(e journal.Entry) bool {
	return (f.stream == "" || e.Stream == f.stream) && (f.contains == "" || strings.Contains(e.Message, f.contains)) &&
		(f.since.IsZero() || !e.Time.Before(f.since)) && (f.until.IsZero() || e.Time.Before(f.until))
}

// maxScan is how many pages of a log one request looks through.
const maxScan = 20

func readLog(log *journal.Log, in logInput) (*body[journal.Page], error) {
	f, err := newFilter(in.Stream, in.Contains, in.Since, in.Until)
	if err != nil {
		return nil, err
	}
	q := journal.Query{Limit: in.Limit, Cursor: in.Cursor, Before: in.Before}
	if f.none() {
		page, err := log.Read(q)
		return &body[journal.Page]{page}, err
	}
	back := in.Cursor == "" || in.Before
	out := journal.Page{Entries: []journal.Entry{}}
	q.Limit = journal.MaxLimit
	for range maxScan {
		page, err := log.Read(q)
		if err != nil {
			return nil, err
		}
		if len(page.Entries) == 0 {
			break
		}
		if out.StartCursor == "" || back {
			out.StartCursor = page.StartCursor
		}
		if out.EndCursor == "" || !back {
			out.EndCursor = page.EndCursor
		}
		hits := []journal.Entry{}
		for _, e := range page.Entries {
			if f.match(e) {
				hits = append(hits, e)
			}
		}
		if back {
			out.Entries = append(hits, out.Entries...)
			if over := len(out.Entries) - in.Limit; over > 0 {
				out.Entries = out.Entries[over:]
				// A cursor names the place behind its line: what precedes the first
				// entry is what precedes the place behind it, but for that entry itself.
				out.StartCursor, err = placeBefore(log, out.Entries[0].Cursor)
				return &body[journal.Page]{out}, err
			}
			q.Cursor, q.Before = page.StartCursor, true
		} else {
			out.Entries = append(out.Entries, hits...)
			if len(out.Entries) >= in.Limit {
				out.Entries = out.Entries[:in.Limit]
				out.EndCursor = out.Entries[in.Limit-1].Cursor
				break
			}
			q.Cursor = page.EndCursor
		}
	}
	return &body[journal.Page]{out}, nil
}

// placeBefore is the start cursor of the one entry that a cursor stands behind.
func placeBefore(log *journal.Log, cursor string) (string, error) {
	page, err := log.Read(journal.Query{Limit: 1, Cursor: cursor, Before: true})
	return page.StartCursor, err
}

func followLog(log *journal.Log, in logEventsInput) (runFunc, error) {
	f, err := newFilter(in.Stream, in.Contains, "", "")
	if err != nil {
		return nil, err
	}
	cursor := resume(in.LastEventID, in.Cursor)
	if cursor != "" { // refuse a bad one before the stream begins
		if _, err := log.Read(journal.Query{Limit: 1, Cursor: cursor}); err != nil {
			return nil, err
		}
	}
	return func(ctx context.Context, st *stream) error {
		return log.Follow(ctx, cursor, in.Limit, func(e journal.Entry) error {
			if !f.match(e) {
				return nil
			}
			return st.send("log", e.Cursor, e)
		})
	}, nil
}

// addLogFile registers a route that answers with a whole log as a file.
func addLogFile[I any](s *Server, op huma.Operation, open func(*I) (*journal.Log, string, logFileInput, error)) {
	op.Method, op.Tags = http.MethodGet, []string{tagLogs}
	op.Description = "The whole, from the oldest entry that the server still has to the newest."
	prepare(&op)
	op.Responses = map[string]*huma.Response{"200": {Description: "The log", Content: map[string]*huma.MediaType{
		"text/plain": {Schema: &huma.Schema{Type: huma.TypeString}}, "application/jsonl": {Schema: &huma.Schema{Type: huma.TypeString}},
	}}}
	huma.Register(s.api, op, func(ctx context.Context, in *I) (*huma.StreamResponse, error) {
		log, name, o, err := open(in)
		if err != nil {
			return nil, s.fail(info(ctx), err)
		}
		f, err := newFilter(o.Stream, o.Contains, o.Since, o.Until)
		if err != nil {
			return nil, s.fail(info(ctx), err)
		}
		return &huma.StreamResponse{Body: func(hc huma.Context) {
			_, w := humachi.Unwrap(hc)
			kind, ending := "text/plain; charset=utf-8", ".log"
			if o.Format == "json" {
				kind, ending = "application/jsonl", ".jsonl"
			}
			w.Header().Set("Content-Type", kind)
			w.Header().Set("Content-Disposition", `attachment; filename="`+name+ending+`"`)
			if err := writeLog(hc.Context(), w, log, f, o.Format == "json"); err != nil && ctx.Err() == nil {
				s.log.Debug("a log was not sent to its end", "request", info(ctx).id, "err", err)
				panic(http.ErrAbortHandler) // the client is to see that it is cut short
			}
		}}, nil
	})
}

// oldest is a cursor whose file is gone: what follows it begins with the oldest
// entry.
const oldest = "0.0"

func writeLog(ctx context.Context, w http.ResponseWriter, log *journal.Log, f logFilter, asJSON bool) error {
	out := bufio.NewWriterSize(w, 32<<10)
	rc := http.NewResponseController(w)
	defer rc.SetWriteDeadline(time.Time{}) //nolint:errcheck // the connection may serve other requests
	enc := json.NewEncoder(out)
	for cursor := oldest; ; {
		page, err := log.Read(journal.Query{Limit: journal.MaxLimit, Cursor: cursor})
		if err != nil {
			return err
		}
		rc.SetWriteDeadline(time.Now().Add(writeTimeout)) //nolint:errcheck // test recorders have none
		for _, e := range page.Entries {
			switch {
			case !f.match(e):
				continue
			case asJSON:
				err = enc.Encode(e)
			default:
				_, err = fmt.Fprintf(out, "%s %s %s\n", e.Time.UTC().Format(time.RFC3339Nano), e.Stream, e.Message)
			}
			if err != nil {
				return err
			}
		}
		if len(page.Entries) == 0 || ctx.Err() != nil {
			return firstError(ctx.Err(), out.Flush())
		}
		cursor = page.EndCursor
	}
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
