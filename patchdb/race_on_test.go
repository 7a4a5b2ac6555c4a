//go:build race

package patchdb

// killRounds is fewer under the race detector, whose business is elsewhere:
// the writers are other processes.
const killRounds = 100
