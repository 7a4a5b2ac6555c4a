package lxcrt

import (
	"context"
	"errors"
	"os"
	"strings"
)

// group is the container's cgroup, relative to a tree's root.
func (c *Container) group() string { return c.r.o.CgroupParent + "/" + c.spec.Name }

// payload is the part of it that has everything inside.
func (c *Container) payload() string { return c.group() + "/payload" }

// Freeze stops every process inside where it is.
func (c *Container) Freeze(ctx context.Context) error { return c.setFrozen(ctx, true) }

// Thaw lets them go on.
func (c *Container) Thaw(ctx context.Context) error { return c.setFrozen(ctx, false) }

func (c *Container) setFrozen(ctx context.Context, on bool) error {
	op := "thaw"
	if on {
		op = "freeze"
	}
	c.op.Lock()
	defer c.op.Unlock()
	c.mu.Lock()
	state := c.state
	c.mu.Unlock()
	if state != Running && state != Frozen {
		return c.fail(op, ErrNotRunning)
	}
	if err := c.freezer(on); err != nil {
		return c.fail(op, err)
	}
	for try := 0; c.frozen() != on; try++ {
		if err := ctx.Err(); err != nil {
			return c.fail(op, err)
		}
		if try == 2000 {
			return c.fail(op, errors.New("the kernel does not get through"))
		}
		pause(try)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state == Running || c.state == Frozen {
		if on {
			c.setStateLocked(Frozen)
		} else {
			c.setStateLocked(Running)
		}
	}
	return nil
}

func (c *Container) freezer(on bool) error {
	if c.r.trees.cgroup2() {
		v := "0"
		if on {
			v = "1"
		}
		return os.WriteFile(c.r.trees.path("", c.payload(), "cgroup.freeze"), []byte(v), 0)
	}
	v := "THAWED"
	if on {
		v = "FROZEN"
	}
	return os.WriteFile(c.r.trees.path("freezer", c.payload(), "freezer.state"), []byte(v), 0)
}

func (c *Container) frozen() bool {
	if c.r.trees.cgroup2() {
		b, _ := os.ReadFile(c.r.trees.path("", c.payload(), "cgroup.events"))
		return strings.Contains(string(b), "frozen 1")
	}
	b, _ := os.ReadFile(c.r.trees.path("freezer", c.payload(), "freezer.state"))
	return strings.TrimSpace(string(b)) == "FROZEN"
}
