// Package remote reads packages over HTTP without fetching all of them.
//
// A Reader is an io.ReaderAt over a URL. It asks for byte ranges (RFC 9110
// section 14): the first request is for the beginning of the file and tells the
// length and whether ranges work at all, so no HEAD is needed; small reads are
// widened and remembered, so that neighbouring ones become one request; reads that
// continue one another are served by requests of twice the length each time, up to
// 64 MiB, or by exactly one where Expect says what will be read. Package s9pk says
// so for what goes front to back: verifying and extracting, a File's Stream, and
// its Reader when that is copied, or has been read for 2 MiB in a row.
//
// Connections that break, stall or end early are taken up again at the byte that
// is missing, with growing pauses, and give up when several attempts in a row
// bring nothing. The file must stay the same meanwhile: later requests carry
// If-Range, and an answer with another length or another validator is
// ErrChanged. An answer that is not for the range that was asked for is ErrRange.
// A server that ignores ranges is read from its beginning, forward only.
//
// Nothing that a server says is trusted beyond that: what is read is proven by
// package s9pk, against the signed root.
package remote
