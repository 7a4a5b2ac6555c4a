package lxcrttest_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/selfstead/selfstead/lxcrt"
	"github.com/selfstead/selfstead/lxcrt/lxcrttest"
)

// web keeps one container running. It is written against lxcrt.Engine: a program
// hands it rt.Engine() of a Runtime, a test a fake.
type web struct{ engine lxcrt.Engine }

func (w web) up(ctx context.Context) (lxcrt.Instance, error) {
	c, err := w.engine.Create(ctx, lxcrt.Spec{Name: "web", Layers: []lxcrt.Layer{{Path: "/images/web.squashfs"}},
		IDs: lxcrt.IDRange{Base: 1 << 20}, Init: []string{"/bin/web"}})
	if err != nil {
		return nil, err
	}
	if err := c.Start(ctx); err != nil {
		return nil, errors.Join(err, c.Destroy(ctx))
	}
	return c, nil
}

// A test without root, LXC or images: programs are Go functions.
func Example() {
	host := lxcrttest.NewHost()
	defer host.Close()
	host.Sources = func(string) error { return nil } // images need not exist
	host.Program("/bin/web", func(ctx context.Context, p *lxcrttest.FakeProcess) int {
		term := p.Notify(syscall.SIGTERM)
		select {
		case <-term:
			return 0
		case <-ctx.Done():
			return 1
		}
	})
	host.Program("/bin/hello", func(_ context.Context, p *lxcrttest.FakeProcess) int {
		fmt.Fprintln(p.Stdout, "hello from", p.Container)
		return 3
	})
	engine, err := host.Open(lxcrt.Options{Dir: "/var/lib/x"})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer engine.Close()
	ctx := context.Background()

	// What if the first start fails?
	host.Fail("start", "web", errors.New("no space left"))
	_, err = web{engine}.up(ctx)
	fmt.Println(err)

	c, err := web{engine}.up(ctx)
	fmt.Println(c.State(), err)
	p, err := c.Exec(ctx, lxcrt.ExecSpec{Argv: []string{"/bin/hello"}, Stdout: os.Stdout})
	if err != nil {
		fmt.Println(err)
		return
	}
	st, _ := p.Wait()
	fmt.Println(st)
	_ = c.Stop(ctx, lxcrt.StopOptions{})
	st, _ = c.Wait(ctx)
	fmt.Println(c.State(), st)
	// Output:
	// lxcrt: start web: no space left
	// running <nil>
	// hello from web
	// exit 3
	// stopped exit 0
}
