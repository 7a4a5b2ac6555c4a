// Package exver is the extended versions of StartOS packages (exver 0.2.1):
// versions with an upstream and a downstream part and an optional flavor, and
// ranges of them.
//
//	Version          1.2.3-rc.1         numbers, prerelease segments
//	ExtendedVersion  #flavor:1.2.3:0    flavor, upstream, downstream
//	Range            >=1:0 <2:0 || #f   conditions on an ExtendedVersion
//
// Parsing accepts exactly what the Rust implementation on StartOS servers
// accepts, oddities included: what follows a complete range and does not parse
// is dropped ("1 junk" is "1"; see ParseRangeStrict), && and || bind equally and
// from left to right, and two conditions side by side repeat the last operator
// that was written. The TypeScript implementation of the SDK differs in corners;
// what it prints, this reads.
package exver
