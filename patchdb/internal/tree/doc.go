// Package tree is the immutable JSON document under patchdb.
//
// A Node never changes once it can be seen by someone else: every edit copies
// the path from the root to the place of the edit and shares all the rest, so
// a snapshot is a pointer and an edit costs the path, not the document. Objects
// keep the order in which their members arrived. Large objects are hash tries,
// large arrays are counted trees; both look the same from outside.
//
// Numbers keep the text they arrived with, so no integer or float is ever
// rounded; two numbers are equal when their decimal values are.
package tree
