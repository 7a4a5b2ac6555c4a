// Package journal is where a service's log stands: the files service.log,
// service.log.1 and so on that PID 1 writes inside the service's container, read
// by package logs.
package journal
