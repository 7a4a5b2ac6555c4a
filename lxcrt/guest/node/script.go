package node

import _ "embed"

// Script is the runtime: one CommonJS file for Node.js 20 or later that needs
// nothing beside it.
//
//go:embed dist/index.js
var Script []byte

// Path is where Script stands in a container.
const Path = "/usr/lib/startos/init/index.js"

// Protocol is the version of the private method selfstead.status, and of what
// a host may rely on after it took over a running container: since 2 that an
// execute or an exit that it asks for again is the same one.
const Protocol = 2

// Args are the arguments that Node is started with: a bundle may be written as
// an ECMAScript module, warnings say where they come from, and a small young
// generation and one helper thread keep an idle service with the SDK's bundle
// at 82 instead of 96 MiB.
var Args = []string{"--max-semi-space-size=1", "--v8-pool-size=1", "--experimental-detect-module", "--trace-warnings", Path}
