// Package problem is the one shape in which the server says that something
// went wrong: the problem details body of RFC 9457 with a stable code, the
// field or archive entry at fault and, where there is one, the call that helps.
//
// A domain package returns a *Problem where the caller is to learn the reason,
// and any other error where only the log is: From turns the latter into the
// "internal" problem without a word of the cause.
package problem
