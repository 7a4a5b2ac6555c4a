package state

import "time"

// SSHKeysPointer is where the SSH keys that may come in stand, by their ids.
var SSHKeysPointer = PrivatePointer("sshKeys")

// SSHKey is one of them.
type SSHKey struct {
	Line  string    `json:"line"` // as in an authorized_keys file
	Added time.Time `json:"added"`
}
