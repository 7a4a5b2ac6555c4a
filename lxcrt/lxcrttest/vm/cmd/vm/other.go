//go:build !linux

package main

func main() { panic("vm: this program is for Linux") }
