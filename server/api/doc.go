// Package api holds the JSON shapes of the server's HTTP API that are neither
// an operation (package operation) nor a problem (package problem). Both ends
// use it: the routes, and the Go client that the command line is built on. It
// imports nothing heavy for that reason.
package api
