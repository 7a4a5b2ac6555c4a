// Package embedded carries what the server brings along for its containers: the
// static program that is PID 1 inside, and the Node runtime that it starts. Both
// are written once into a folder that lies as an overlay layer above the base
// image, so a new server version needs no new base image.
package embedded
