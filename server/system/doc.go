// Package system is the machine that the server runs on, as far as its owner
// sees and changes it: names, time, what it is made of, and the SSH keys that
// may come in.
//
// Reading is always possible. The machine itself is changed only where whoever
// starts the server says so ([Options].ManageHost, [Options].AuthorizedKeys): a
// server that somebody tries out on his own computer leaves that alone. In a
// file of SSH keys only the lines between two marks are ours.
package system
