// Package account knows who may use the server: the one-time code that claims
// a new server, the owner's password, and the sessions of those who signed in.
//
// What is stored: an Argon2id hash of the password and SHA-256 of each session
// token, both in the private part of the document. A token has 128 bits of
// randomness and needs no slow hash.
//
// Guessing is slowed in two ways, and neither can lock the owner out for good.
// Each client address has a few failures free and then one try every twelve
// seconds. Hashing runs one at a time, so all strangers together get at most a
// few tries a second; a request whose turn comes is drawn by lot, so a flood
// cannot hold one place for ever; and addresses that have signed in before go
// first and do not wait for strangers.
package account
