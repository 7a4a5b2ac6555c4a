// Package server is the HTTP API of a selfstead server: it translates between
// HTTP and the domain rooms below it, and does no more. Each route is one entry
// of the OpenAPI 3.1 document at /openapi.json; /docs shows it to people.
//
// Two kinds of listener serve the same routes. On a remote one every route but
// a few needs a session, as a bearer token or as a cookie. A local one is a
// socket that only the server's own user can open: it needs no session, and a
// few routes exist for it alone.
//
// Long answers are streams of server-sent events. A stream ends with the
// session that opened it and when the server shuts down; a client that reads
// slowly is held to one message in flight and never holds up anyone else.
package server
