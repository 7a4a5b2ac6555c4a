package main

import (
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"
)

// progress is one bar at a time on a terminal, and nothing elsewhere.
type progress struct {
	mu    sync.Mutex
	mpb   *mpb.Progress // nil: not a terminal
	step  string
	known bool // the step's total
	bar   *mpb.Bar
}

// newProgress draws on w if that is a terminal.
func newProgress(w io.Writer) *progress {
	p := &progress{}
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		p.mpb = mpb.New(mpb.WithOutput(w), mpb.WithWidth(40))
	}
	return p
}

// set shows how far a step is: a bar, or a spinner where total is 0, not known.
func (p *progress) set(step string, done, total int64) {
	if p.mpb == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if step != p.step || (total > 0) != p.known {
		p.finish()
		p.step, p.known = step, total > 0
		name := mpb.PrependDecorators(decor.Name(step + " "))
		if p.known {
			p.bar = p.mpb.New(total, mpb.BarStyle().Lbound("").Rbound("").Filler("━").Tip("━").Padding("─"), name,
				mpb.BarRemoveOnComplete(), mpb.AppendDecorators(decor.CountersKibiByte(" % .1f / % .1f")))
		} else {
			p.bar = p.mpb.New(0, mpb.SpinnerStyle().PositionLeft(), name, mpb.BarWidth(1), mpb.AppendDecorators(
				decor.Any(func(s decor.Statistics) string {
					if s.Current == 0 {
						return ""
					}
					return fmt.Sprintf(" % .1f", decor.SizeB1024(s.Current))
				})))
		}
	}
	if p.known {
		p.bar.SetTotal(total, false)
	}
	p.bar.SetCurrent(done)
}

// finish ends the current bar. Held: mu.
func (p *progress) finish() {
	if p.bar != nil {
		p.bar.Abort(true)
		p.bar.Wait()
		p.bar, p.step = nil, ""
	}
}

// done takes the last bar away; what is printed afterwards stays.
func (p *progress) done() {
	if p.mpb == nil {
		return
	}
	p.mu.Lock()
	p.finish()
	p.mu.Unlock()
	p.mpb.Wait()
}

// beside is where to print lines while a bar may be drawn on w.
func (p *progress) beside(w io.Writer) io.Writer {
	if p == nil || p.mpb == nil {
		return w
	}
	return p.mpb
}
