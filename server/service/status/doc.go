// Package status is the state machine of a service's run state as pure
// functions on the document's types: what each command makes of the desired
// status, what the reconciler does next, and which word clients see.
//
// The desired status is one of stopped, running, restarting and backing-up
// (StartOS data model, StatusInfo); whether the service was started is the
// time in StatusInfo.Started. Every function that changes a Package also
// settles its derived members, see [Settle].
package status
