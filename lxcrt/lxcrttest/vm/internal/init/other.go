//go:build !linux

package main

func main() { panic("init: this program is for Linux") }
