// Package client speaks to a selfstead server: over its own socket, where no
// sign-in is needed, or over HTTP and HTTPS with a session's token. Failed
// calls give the server's *problem.Problem; streams resume by themselves where
// they broke off.
package client
