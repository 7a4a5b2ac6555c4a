// Package node holds the Node runtime of a service container: the program that
// loads a package's JavaScript bundle, runs it as the host asks over
// service.sock and carries its effects to the host over host.sock (StartOS
// SDK 2.0). Its TypeScript is in src; dist/index.js is built from it by
//
//	npm ci --ignore-scripts && npm run build
//
// and committed, so that Go builds need no npm. At run time it stands at
// /usr/lib/startos/init/index.js.
package node
