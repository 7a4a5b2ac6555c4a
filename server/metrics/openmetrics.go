package metrics

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

// ContentType is the media type of Text.
const ContentType = "application/openmetrics-text; version=1.0.0; charset=utf-8"

// Family is one figure with all its samples.
type Family struct {
	Name    string // without _total, which counters get
	Counter bool   // a gauge otherwise
	Unit    string // "bytes", "seconds" or ""; the name ends in it
	Help    string
	Samples []Sample
}

// Sample is one value.
type Sample struct {
	Labels [][2]string
	Value  float64
}

var escape = strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`)

// Text writes families as an OpenMetrics 1.0 exposition.
func Text(families []Family) []byte {
	var b bytes.Buffer
	for _, f := range families {
		kind, suffix := "gauge", ""
		if f.Counter {
			kind, suffix = "counter", "_total"
		}
		fmt.Fprintf(&b, "# TYPE %s %s\n", f.Name, kind)
		if f.Unit != "" {
			fmt.Fprintf(&b, "# UNIT %s %s\n", f.Name, f.Unit)
		}
		fmt.Fprintf(&b, "# HELP %s %s\n", f.Name, escape.Replace(f.Help))
		for _, s := range f.Samples {
			b.WriteString(f.Name + suffix)
			for i, l := range s.Labels {
				b.WriteString([]string{"{", ","}[min(i, 1)])
				b.WriteString(l[0] + `="` + escape.Replace(l[1]) + `"`)
			}
			if len(s.Labels) > 0 {
				b.WriteByte('}')
			}
			b.WriteString(" " + strconv.FormatFloat(s.Value, 'g', -1, 64) + "\n")
		}
	}
	b.WriteString("# EOF\n")
	return b.Bytes()
}
