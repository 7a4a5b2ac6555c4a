package effect

import (
	"encoding/json"
	"strings"
)

// missing refuses parameters without the named members.
func missing(params json.RawMessage, names []string) error {
	if len(names) == 0 {
		return nil
	}
	members, err := object(params)
	if err != nil {
		return invalid("%s", err)
	}
	for _, name := range names {
		in, at := members, name
		for {
			outer, rest, deeper := strings.Cut(at, ".")
			value, ok := in[outer]
			if !ok || string(value) == "null" {
				return invalid("%s is missing", name)
			}
			if !deeper {
				break
			}
			if in, err = object(value); err != nil {
				return invalid("%s: %s", outer, err)
			}
			at = rest
		}
	}
	return nil
}

func object(text json.RawMessage) (members map[string]json.RawMessage, err error) {
	err = json.Unmarshal(text, &members)
	return members, err
}

// progress is how far something is, as the SDK's trackers say it: nothing yet,
// done, a count, or several phases with a progress each.
type progress struct {
	Done    *uint64         `json:"done"`
	Total   *uint64         `json:"total"`
	Units   *string         `json:"units"`
	Overall json.RawMessage `json:"overall"`
	Phases  []struct {
		Name     *string         `json:"name"`
		Progress json.RawMessage `json:"progress"`
	} `json:"phases"`
}

// maxNesting bounds phases within phases.
const maxNesting = 16

// checkProgress refuses what no tracker sends.
func checkProgress(text json.RawMessage, depth int) error {
	switch string(text) {
	case "", "null", "true", "false":
		return nil
	}
	var p progress
	if err := json.Unmarshal(text, &p); err != nil {
		return invalid("progress: %s", err)
	}
	if p.Units != nil && *p.Units != "bytes" && *p.Units != "steps" {
		return invalid("progress: %q is not one of bytes, steps", *p.Units)
	}
	if p.Phases == nil {
		if p.Done == nil {
			return invalid("progress: neither done nor phases")
		}
		return nil
	}
	if depth == maxNesting {
		return invalid("progress: phases are nested deeper than %d", maxNesting)
	}
	if err := checkProgress(p.Overall, depth+1); err != nil {
		return err
	}
	for _, phase := range p.Phases {
		if phase.Name == nil {
			return invalid("progress: a phase has no name")
		}
		if err := checkProgress(phase.Progress, depth+1); err != nil {
			return err
		}
	}
	return nil
}
