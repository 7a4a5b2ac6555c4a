// Package e2e has no code of its own: its tests run the real stead program in
// a network namespace, with a second one as another host, and use it over HTTP
// alone, as its users do.
package e2e
