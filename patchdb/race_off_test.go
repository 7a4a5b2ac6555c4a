//go:build !race

package patchdb

// killRounds is how often TestKill kills, unless PATCHDB_KILLS says otherwise.
const killRounds = 1000
