package guest

import "time"

// runOptions tune the run applet.
type runOptions struct {
	Workdir, User string
	Grace         time.Duration // what stragglers get between SIGTERM and the container's end
	Command       []string      // empty: only reap, until a signal to stop
}

func parseRun(args []string) (*runOptions, error) {
	o := &runOptions{Workdir: "/", Grace: 5 * time.Second}
	p := newOptions()
	p.value("workdir", "w", &o.Workdir)
	p.value("user", "u", &o.User)
	p.each("grace", "", func(v string) (err error) {
		if o.Grace, err = time.ParseDuration(v); err != nil || o.Grace < 0 {
			return usagef("run: --grace %q is not a duration", v)
		}
		return nil
	})
	rest, err := p.parse(args)
	o.Command = rest
	return o, err
}
