// Package effect answers the calls that a service makes to its server, the
// effects of the StartOS SDK. Each effect is a function on the document and on
// the few things that only the service's own unit can do ([Host]).
//
// The caller is known from its socket, so no parameter says who it is. Unknown
// parameters are ignored, as bundles send some that only their own runtime
// reads. Names of packages, actions, hosts and the like are checked where they
// come in. Only effects are served here: the commands that the container's own
// program carries out itself (start-container) have no method.
package effect
