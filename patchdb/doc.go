// Package patchdb is a JSON document in a file: updates are atomic and durable,
// each is a JSON Patch (RFC 6902), and subscribers hear every one of them.
//
//	db, err := patchdb.Open("state.db", patchdb.Options{})
//	rev, err := db.Put(ctx, "/name", "anna")
//	rev, err = patchdb.Mutate(ctx, db, "/settings", func(s *Settings) error { … })
//	sub, err := db.Subscribe("/settings", patchdb.SubscribeOptions{})
//
// What it promises:
//
//  1. Atomicity. An Update happens entirely or not at all, whatever fails or
//     crashes. A failed one spends no revision.
//  2. Order. Revisions count up by one. Updates run one after the other, and
//     each sees all before it.
//  3. Durability. An Update that returned without error is on stable storage.
//     Updates that wait at the same time share one sync.
//  4. Isolation. A View sees one revision. It waits for no writer, and no
//     writer waits for it.
//  5. Honesty. An unfinished write at the end of the file, which nobody was
//     promised, is cut. Anything else that is not as it was written is an
//     ErrCorrupt: it is never skipped.
//  6. One writer. A file is open in one process at a time; a second Open is
//     refused (except with Options.ReadOnly, which reads what is there).
//  7. Failure. After a write or sync that failed the document stays at the last
//     durable revision, and the database is read-only until it is opened again.
//  8. Delivery. A subscriber hears a dump and then every revision that concerns
//     its pointer, in order, relative to the pointer: applied to the dump they
//     give the value there at each revision. If it falls behind its bound it
//     hears a new dump instead. No queue grows without bound, and no writer
//     waits for a subscriber.
//  9. Exactness. Integers, floats and texts come back as they were put. Numbers
//     keep their digits; 1 and 1.0 count as equal, as RFC 6902 wants it.
//
// Not promised: member order has no meaning, though members keep the order in
// which they arrived; a document is at most 1 GiB of JSON and nested at most
// 1000 deep. The whole document is in memory, at about four times its text.
//
// The format of the file is described in internal/wal. Subpackages: startos
// reads and writes the database files of StartOS, stream serves subscriptions
// over HTTP.
package patchdb
