// Package s9pktest builds small signed packages in memory, for tests of what
// reads them.
package s9pktest
