// Package operation keeps the long work of the server: what runs, how far it
// is, how it ended. An Operation is what callers of the API see, a Job is the
// handle of the code that does the work.
//
//	Begin/Start -> running -> succeeded | failed | cancelled
//
// Reporting progress costs a lock and never waits for a reader: a reader that
// is slow sees the newest snapshot, not each one. Ended operations stay
// readable for an hour, and at most 200 of them. With a Store they outlive the
// process: what ran when it was killed is taken up by the next one with Resume,
// or ended by SettleInterrupted.
package operation
