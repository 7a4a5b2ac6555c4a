// Package e2e has no code of its own: its tests run the real stead program in
// a network namespace, with a second one as another host, and use it over HTTP,
// as its users do.
//
// The folder conformance holds two packages of the unmodified StartOS SDK that
// look at the server from the other side, from inside a service. A row of
// probe/startos/effects.ts is one effect with its parameters and what has to
// come back, a case in the files beside it is something that the SDK's
// documentation promises; either is one more test here.
package e2e
