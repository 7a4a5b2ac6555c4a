package guest

import "strings"

// options is a small long-option parser. The standard flag package is not used
// because the contract has GNU spelling (--name=value, --name value, -n value),
// repeated options, and stops at the first operand: everything after it,
// options included, belongs to the command.
type options struct {
	byName map[string]*option
}

type option struct {
	takesValue bool
	set        func(string) error
}

func newOptions() *options { return &options{byName: map[string]*option{}} }

func (o *options) add(name, short string, opt *option) {
	o.byName["--"+name] = opt
	if short != "" {
		o.byName["-"+short] = opt
	}
}

// flag declares an option without a value.
func (o *options) flag(name string, to *bool) {
	o.add(name, "", &option{set: func(string) error { *to = true; return nil }})
}

// value declares an option with one value; the last one given counts.
func (o *options) value(name, short string, to *string) {
	o.add(name, short, &option{takesValue: true, set: func(v string) error { *to = v; return nil }})
}

// each declares an option with a value that is handed to set at every use.
func (o *options) each(name, short string, set func(string) error) {
	o.add(name, short, &option{takesValue: true, set: set})
}

// parse consumes options from the front of args and returns the operands. A
// "--" ends the options and is dropped.
func (o *options) parse(args []string) ([]string, error) {
	for len(args) > 0 {
		arg := args[0]
		if arg == "--" {
			return args[1:], nil
		}
		if len(arg) < 2 || arg[0] != '-' {
			return args, nil
		}
		args = args[1:]
		name, value, has := arg, "", false
		if strings.HasPrefix(arg, "--") {
			name, value, has = strings.Cut(arg, "=")
		} else if len(arg) > 2 {
			name, value, has = arg[:2], strings.TrimPrefix(arg[2:], "="), true
		}
		opt := o.byName[name]
		switch {
		case opt == nil:
			return nil, usagef("unknown option %s", name)
		case has && !opt.takesValue:
			return nil, usagef("option %s takes no value", name)
		case opt.takesValue && !has:
			if len(args) == 0 {
				return nil, usagef("option %s needs a value", name)
			}
			value, args = args[0], args[1:]
		}
		if err := opt.set(value); err != nil {
			return nil, err
		}
	}
	return args, nil
}

// all parses options that may stand before, between and after the operands.
func (o *options) all(args []string) ([]string, error) {
	var operands []string
	for len(args) > 0 {
		dashes := args[0] == "--"
		rest, err := o.parse(args)
		if err != nil {
			return nil, err
		}
		if dashes {
			return append(operands, rest...), nil
		}
		if len(rest) > 0 {
			operands, rest = append(operands, rest[0]), rest[1:]
		}
		args = rest
	}
	return operands, nil
}
