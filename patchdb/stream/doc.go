// Package stream serves subscriptions of a patchdb over HTTP.
//
// GET with the query parameters pointer (RFC 6901; the whole document if left
// out) and since (a revision to resume from) answers with Server-Sent Events, or
// with a WebSocket where the client asks to upgrade. The messages are the same:
//
//	dump       {"id":7,"value":…}             where to start from, also again
//	revision   {"id":9,"after":7,"patch":[…]} what changed at the pointer (RFC 6902)
//	heartbeat  {"id":12}                      nothing up to 12 that was not told
//
// As Server-Sent Events the name is the event's type, and the id its id too: a
// browser that reconnects sends it as Last-Event-ID, which counts as since. On a
// WebSocket each message is a text frame {"dump":…}, {"revision":…} or
// {"heartbeat":…}.
//
// A client that is at revision n takes a revision with after n, and a dump or
// heartbeat in any case; with any other after it has missed something and must
// connect anew. A client that is too slow gets a dump in place of what piled up;
// one that takes nothing for WriteTimeout is cut off.
//
// The client folder holds a TypeScript client.
package stream
