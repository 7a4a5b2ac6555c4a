// Command vm runs things on Debian's kernel in a virtual machine:
//
//	vm image -cache DIR                     makes the machine's root file system
//	vm test -cache DIR PACKAGE[=RUN][!SKIP]...  runs packages' tests there
//	vm run -cache DIR COMMAND [ARGUMENT]...     runs a command there
//
// It exits with 1 when tests fail, with the command's own status after run, and
// with 2 when it could not do what it was told.
package main
