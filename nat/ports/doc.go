// Package ports hands out the outside ports of a host: who has which port,
// single or in ranges, counted by reference.
//
// Ports up to 1024 and a few that hosts use themselves are restricted: they are
// only had by asking for them with ReserveRestricted. A port that is not wished
// for in particular comes from the dynamic range of RFC 6335, 49152 to 65534;
// 65535 is left out, since too much software counts one past it.
//
// An allocation names its owner. The same owner may reserve the same ports
// again, which counts; another owner gets a TakenError that names the holder.
// Everything is all or nothing.
package ports
