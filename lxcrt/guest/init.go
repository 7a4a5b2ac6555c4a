package guest

import (
	"time"
)

// initOptions tune the init applet.
type initOptions struct {
	LogDir  string
	Grace   time.Duration // what stragglers get between SIGTERM and the container's end
	Command []string
}

func parseInit(args []string) (*initOptions, error) {
	o := &initOptions{LogDir: "/run/selfstead/log", Grace: 5 * time.Second}
	p := newOptions()
	p.value("log", "", &o.LogDir)
	p.each("grace", "", func(v string) (err error) {
		if o.Grace, err = time.ParseDuration(v); err != nil || o.Grace < 0 {
			return usagef("init: --grace %q is not a duration", v)
		}
		return nil
	})
	rest, err := p.parse(args)
	if err != nil {
		return nil, err
	}
	if len(rest) == 0 {
		return nil, usagef("init: the command is missing")
	}
	o.Command = rest
	return o, nil
}
