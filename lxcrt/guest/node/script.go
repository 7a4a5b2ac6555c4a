package node

import _ "embed"

// Script is the runtime: one CommonJS file for Node.js 20 or later that needs
// nothing beside it.
//
//go:embed dist/index.js
var Script []byte
