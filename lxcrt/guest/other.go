//go:build !linux

package guest

import "errors"

var errLinuxOnly = errors.New("guest: start-container runs on Linux only")

func launch(*call, *subcontainerOptions) error      { return errLinuxOnly }
func launchInit(*call, *subcontainerOptions) error  { return errLinuxOnly }
func execJoin(*call, *subcontainerOptions) error    { return errLinuxOnly }
func execCommand(*call, *subcontainerOptions) error { return errLinuxOnly }
func initApplet(*call, []string) error              { return errLinuxOnly }
func runApplet(*call, []string) error               { return errLinuxOnly }
func pipeWrapApplet(*call, []string) error          { return errLinuxOnly }
func unshareUserns(*call, []string) error           { return errLinuxOnly }
func (m *bindMount) mount() error                   { return errLinuxOnly }
