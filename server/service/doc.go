// Package service runs the installed packages: it installs and removes them,
// keeps one container for each, starts and stops what runs inside as their
// owner wants, and answers the effects that they call.
//
// The document is the truth. What a package should be doing stands there
// before anything is done, and every step can be found again by a later
// process: [Manager.Start] makes disk and kernel match the document, whatever
// a killed process left. A package is
//
//	(nothing) --Sideload--> installing --> installed --Uninstall--> removing --> (nothing)
//	installed --Sideload--> updating --> installed (the new version, or the old one again)
//
// An entry that is still installing or updating at Start is taken back whole,
// with the data that a snapshot kept; one that is removing is removed to the
// end. Containers that run go on running and are adopted; what is gone is made
// anew, each after those that it needs.
//
// One [unit] stands for each package, with one goroutine, the reconciler, that
// brings its run state to what is desired. No lock and no transaction is held
// while a container is asked for something: it may call an effect meanwhile.
//
// A service reaches another one where its signed manifest declares it as a
// dependency, or where the owner grants it ([Manager.Grant]); that holds for
// connections at the containers' gateway and straight to a container alike, and
// for volumes by manifest alone. What each takes of the machine is limited
// ([Manager.SetLimits]); the owner changes that while it runs.
//
//	unit         package, its archive, its reconciler
//	  instance   one container with its two sockets
//	effect       what the container may call
//	rpc          how the two talk
//	status, task pure rules
package service
