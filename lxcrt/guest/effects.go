package guest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
)

// params builds an effect's parameter object from operands and options.
type params func(c *call, args []string) (any, error)

// effects lists the effects that the command line offers, by their words
// joined with a dot. Results are printed as JSON unless null.
var effects = map[string]params{
	"echo":                   operand("message"),
	"action.clear":           idLists("except"),
	"action.clear-tasks":     idLists("only", "except"),
	"action.get-input":       actionParams("prefill"),
	"action.run":             actionParams("input"),
	"rebuild":                none,
	"restart":                none,
	"shutdown":               none,
	"set-main-status":        operand("status"),
	"get-status":             packageOption,
	"set-dependencies":       jsonParam("dependencies"),
	"get-dependencies":       none,
	"check-dependencies":     packageIDs,
	"subcontainer.create-fs": createFS,
	"subcontainer.destroy-fs": operand(
		"guid"),
	"set-data-version": dataVersion,
	"get-data-version": none,
}

// effect finds the effect named by the first one or two words and calls it.
func (c *call) effect(words []string) error {
	method, rest := words[0], words[1:]
	build, ok := effects[method]
	if !ok && len(rest) > 0 {
		method, rest = method+"."+rest[0], rest[1:]
		build, ok = effects[method]
	}
	if !ok {
		return usagef("unknown subcommand %q", method)
	}
	p, err := build(c, rest)
	if err != nil {
		return err
	}
	result, err := c.client().Call(method, p)
	if err != nil {
		return err
	}
	return printResult(c.stdout, result)
}

// printResult writes a string as it is and anything else as indented JSON.
func printResult(w io.Writer, result json.RawMessage) error {
	result = bytes.TrimSpace(result)
	if len(result) == 0 || string(result) == "null" {
		return nil
	}
	var text string
	if json.Unmarshal(result, &text) == nil {
		_, err := fmt.Fprintln(w, text)
		return err
	}
	var b bytes.Buffer
	if err := json.Indent(&b, result, "", "  "); err != nil {
		return fmt.Errorf("guest: answer of the host: %w", err)
	}
	b.WriteByte('\n')
	_, err := w.Write(b.Bytes())
	return err
}

func none(_ *call, args []string) (any, error) {
	if _, err := operands(newOptions(), args, 0, 0); err != nil {
		return nil, err
	}
	return map[string]any{}, nil
}

// operands parses options anywhere and checks the number of operands.
func operands(o *options, args []string, least, most int) ([]string, error) {
	rest, err := o.all(args)
	if err != nil {
		return nil, err
	}
	if len(rest) < least || len(rest) > most {
		return nil, usagef("want %d to %d operands, got %d", least, most, len(rest))
	}
	return rest, nil
}

func operand(name string) params {
	return func(_ *call, args []string) (any, error) {
		rest, err := operands(newOptions(), args, 1, 1)
		if err != nil {
			return nil, err
		}
		return map[string]any{name: rest[0]}, nil
	}
}

// idLists takes exactly one of the options, each repeatable; naming an option
// through its bare word ("except a b") works too.
func idLists(names ...string) params {
	return func(_ *call, args []string) (any, error) {
		lists := map[string][]string{}
		o := newOptions()
		for _, name := range names {
			o.each(name, "", func(v string) error { lists[name] = append(lists[name], v); return nil })
		}
		rest, err := o.all(args)
		if err != nil {
			return nil, err
		}
		if len(rest) > 0 {
			for _, name := range names {
				if rest[0] == name {
					lists[name] = append(append([]string{}, lists[name]...), rest[1:]...)
					rest = nil
					break
				}
			}
		}
		if len(rest) > 0 {
			return nil, usagef("unexpected operand %q", rest[0])
		}
		if len(lists) == 0 {
			lists[names[len(names)-1]] = []string{} // except nothing
		}
		if len(lists) > 1 {
			return nil, usagef("--%s and --%s exclude each other", names[0], names[1])
		}
		return lists, nil
	}
}

// actionParams: ACTION [--package ID] [--NAME JSON], the JSON read from
// standard input when it is "-".
func actionParams(value string) params {
	return func(c *call, args []string) (any, error) {
		var pkg, text string
		o := newOptions()
		o.value("package", "p", &pkg)
		o.value(value, "", &text)
		rest, err := operands(o, args, 1, 1)
		if err != nil {
			return nil, err
		}
		p := map[string]any{"actionId": rest[0]}
		if pkg != "" {
			p["packageId"] = pkg
		}
		if text != "" {
			if p[value], err = c.json(text); err != nil {
				return nil, err
			}
		}
		return p, nil
	}
}

func packageOption(_ *call, args []string) (any, error) {
	var pkg string
	o := newOptions()
	o.value("package", "p", &pkg)
	if _, err := operands(o, args, 0, 0); err != nil {
		return nil, err
	}
	if pkg == "" {
		return map[string]any{}, nil
	}
	return map[string]any{"packageId": pkg}, nil
}

func jsonParam(name string) params {
	return func(c *call, args []string) (any, error) {
		rest, err := operands(newOptions(), args, 1, 1)
		if err != nil {
			return nil, err
		}
		v, err := c.json(rest[0])
		return map[string]any{name: v}, err
	}
}

func packageIDs(_ *call, args []string) (any, error) {
	rest, err := newOptions().all(args)
	if err != nil || len(rest) == 0 {
		return map[string]any{}, err
	}
	return map[string]any{"packageIds": rest}, nil
}

func createFS(_ *call, args []string) (any, error) {
	var name string
	o := newOptions()
	o.value("name", "n", &name)
	rest, err := operands(o, args, 1, 1)
	if err != nil {
		return nil, err
	}
	p := map[string]any{"imageId": rest[0], "name": nil}
	if name != "" {
		p["name"] = name
	}
	return p, nil
}

// dataVersion: without an operand the version is cleared.
func dataVersion(_ *call, args []string) (any, error) {
	rest, err := operands(newOptions(), args, 0, 1)
	if err != nil {
		return nil, err
	}
	if len(rest) == 0 {
		return map[string]any{"version": nil}, nil
	}
	return map[string]any{"version": rest[0]}, nil
}

// json reads a JSON argument, "-" meaning standard input.
func (c *call) json(text string) (json.RawMessage, error) {
	data := []byte(text)
	if text == "-" {
		var err error
		if data, err = io.ReadAll(io.LimitReader(c.stdin, maxAnswer)); err != nil {
			return nil, fmt.Errorf("guest: standard input: %w", err)
		}
	}
	if !json.Valid(data) {
		return nil, usagef("%.40q is not JSON", data)
	}
	return data, nil
}
