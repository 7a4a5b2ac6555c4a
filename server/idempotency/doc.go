// Package idempotency remembers the answers of requests that carry a key of
// their client's, so that a client which did not hear an answer can ask again
// (draft-ietf-httpapi-idempotency-key-header).
//
// A request with a key that is known gets the answer of the first one; while
// the first still runs, it waits for it. A key stands for a day, in a file of
// its own, and at most [MaxKeys] of them and [MaxBytes] of answers: the oldest go
// first. It is noted before the work begins, so a server that was killed in
// between knows that it does not know how the request ended.
package idempotency
