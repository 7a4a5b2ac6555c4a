// Package metrics reads how busy the server's machine is, and writes figures as
// OpenMetrics 1.0 has them. It reads /proc and the file system only; what
// services use comes from package service.
package metrics
