// Package service makes packages of services that are described as data: a
// project whose service.yaml says which processes run from which images, how they
// are checked and reached, what they keep, and what the owner can do with them.
//
//	service.yaml  --Parse-->  Service  --Bundle-->  index.js, service.json
//
// The bundle is an ordinary one: index.js, written once in TypeScript (program)
// against the StartOS SDK and compiled into this package, reads the service.json
// beside it and does what it says. So such a package runs wherever packages run,
// and nothing that runs packages knows of it.
//
// Schema is the shape of service.yaml, as a JSON Schema of draft 2020-12; Parse
// checks by it, and then what a schema cannot say: that what is named exists, and
// that processes do not wait for each other. Errors name line and column.
//
// Texts of commands, arguments, environments, files and messages may hold
// {{config.KEY}} (a setting), {{input.KEY}} (a field of an action's form),
// {{service.id}}, {{service.title}} and {{service.version}}. `| json` puts the
// value in as JSON, \{{ stands for itself. Values are put in as they are: a shell
// should get them by env or stdin.
package service
