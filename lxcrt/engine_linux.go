package lxcrt

import (
	"context"
	"net/netip"
	"os"
	"syscall"
)

// Engine is a Runtime as code that uses one sees it. Code that is written against
// it can be tested without a kernel, on lxcrttest's fake, which keeps the same
// promises: one suite runs on both.
type Engine interface {
	Create(ctx context.Context, s Spec) (Instance, error)
	Load(ctx context.Context, name string) (Instance, error)
	List() ([]string, error)
	CleanUp(ctx context.Context, keep func(name string) bool) error
	Events(ctx context.Context) <-chan Event
	SetEdges(ctx context.Context, edges []Edge) error
	Gateway() (v4, v6 netip.Addr)
	Close() error
}

// Instance is a Container of an Engine; see there what its methods do. Two of one
// Engine are equal exactly if they stand for the same container.
type Instance interface {
	Name() string
	Spec() Spec
	Dir() string
	LogDir() string
	State() State
	PID() int
	Start(ctx context.Context) error
	Stop(ctx context.Context, o StopOptions) error
	Restart(ctx context.Context, o StopOptions) error
	Freeze(ctx context.Context) error
	Thaw(ctx context.Context) error
	Wait(ctx context.Context) (ExitStatus, error)
	Stats(ctx context.Context) (Stats, error)
	SetLimits(ctx context.Context, l Limits) error
	Mount(ctx context.Context, m Mount) error
	Unmount(ctx context.Context, target string) error
	Exec(ctx context.Context, s ExecSpec) (Program, error)
	Destroy(ctx context.Context) error
}

// Program is a Process of an Instance.
type Program interface {
	PID() int
	TTY() *os.File
	Resize(s WindowSize) error
	Signal(sig syscall.Signal) error
	Wait() (ExitStatus, error)
}

// Engine returns the Runtime as an Engine.
func (r *Runtime) Engine() Engine { return engine{r} }

type engine struct{ *Runtime }

func (e engine) Create(ctx context.Context, s Spec) (Instance, error) {
	return asInstance(e.Runtime.Create(ctx, s))
}

func (e engine) Load(ctx context.Context, name string) (Instance, error) {
	return asInstance(e.Runtime.Load(ctx, name))
}

type instance struct{ *Container }

func asInstance(c *Container, err error) (Instance, error) {
	if err != nil {
		return nil, err
	}
	return instance{c}, nil
}

func (i instance) Exec(ctx context.Context, s ExecSpec) (Program, error) {
	p, err := i.Container.Exec(ctx, s)
	if err != nil {
		return nil, err
	}
	return p, nil
}
