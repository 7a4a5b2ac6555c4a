// Package validate judges whether an archive is a good package and reports
// every breach at once, each with its place. Breaches without Warning are those
// for which StartOS refuses to install the package; warnings are what it lets
// pass although the package will not work well, or is larger than its
// documentation allows.
package validate
