// Package patchdbtest helps tests of code that uses a patchdb.
package patchdbtest
