package guest

import (
	"fmt"
	"io"
	"strings"
)

// defaultPath is used to look commands up when the environment has no PATH.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// environ is an ordered set of NAME=VALUE; a later value replaces an earlier one.
type environ struct {
	list  []string
	index map[string]int
}

func newEnviron(base []string) *environ {
	e := &environ{index: make(map[string]int, len(base))}
	for _, kv := range base {
		e.set(kv)
	}
	return e
}

func (e *environ) set(kv string) {
	name, _, ok := strings.Cut(kv, "=")
	if !ok || name == "" {
		return
	}
	if i, ok := e.index[name]; ok {
		e.list[i] = kv
		return
	}
	e.index[name] = len(e.list)
	e.list = append(e.list, kv)
}

func (e *environ) get(name string) (string, bool) {
	i, ok := e.index[name]
	if !ok {
		return "", false
	}
	return e.list[i][len(name)+1:], true
}

// setDefault sets a variable that has no value yet.
func (e *environ) setDefault(name, value string) {
	if _, ok := e.get(name); !ok {
		e.set(name + "=" + value)
	}
}

// candidates are the files that a command may mean, by PATH.
func (e *environ) candidates(command string) []string {
	if strings.Contains(command, "/") {
		return []string{command}
	}
	search, ok := e.get("PATH")
	if !ok {
		search = defaultPath
	}
	var list []string
	for dir := range strings.SplitSeq(search, ":") {
		if dir == "" {
			dir = "."
		}
		list = append(list, dir+"/"+command)
	}
	return list
}

// readEnvFile parses an image's environment file: a NAME=VALUE a line, the
// last newline optional. Lines without "=" are reported on warn and skipped.
func readEnvFile(r io.Reader, warn io.Writer) ([]string, error) {
	data, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	var list []string
	for n, line := range strings.Split(string(data), "\n") {
		if line == "" {
			continue
		}
		if i := strings.IndexByte(line, '='); i <= 0 {
			fmt.Fprintf(warn, "guest: environment file, line %d has no NAME=VALUE\n", n+1)
			continue
		}
		list = append(list, line)
	}
	return list, nil
}
