package nat

import "fmt"

// Finding is something outside our table that keeps forwards from working.
type Finding struct {
	// Certain says that it stops every forwarded connection it concerns;
	// otherwise it stops those that rules we cannot judge do not let through.
	Certain bool
	// Subject names what it is about: "table ip filter, chain FORWARD".
	Subject string
	// Problem says what happens and what would help, in one sentence.
	Problem string
}

// String returns the finding as one line.
func (f Finding) String() string { return f.Subject + ": " + f.Problem }

// fate is what a chain does to the first packet of a connection that we translated.
type fate uint8

const (
	goesOn  fate = iota // reaches the chain's end
	mayStop             // some packets are accepted by conditions that cannot be judged here
	passes
	dropped
)

// condition is what a rule asks before its verdict.
type condition uint8

const (
	always  condition = iota // nothing, or something every new translated connection fulfils
	never                    // something that no new connection fulfils
	unknown                  // anything else
)

// ruleView is a rule reduced to what matters for a new translated connection.
type ruleView struct {
	when    condition
	verdict string // "accept", "drop", "jump", "goto", "return" or ""
	to      string
}

// judge follows a chain. Jumps are followed; a loop cannot exist in the kernel,
// the depth is bounded all the same.
func judge(chains map[string][]ruleView, name string, depth int) fate {
	uncertain := false
	for _, r := range chains[name] {
		if r.when == never || r.verdict == "" {
			continue
		}
		result := goesOn
		switch r.verdict {
		case "accept":
			result = passes
		case "drop":
			result = dropped
		case "return":
			if r.when == always {
				return settled(uncertain)
			}
			continue
		case "jump", "goto":
			if depth < 16 {
				result = judge(chains, r.to, depth+1)
			}
			if r.verdict == "goto" && r.when == always && result == goesOn {
				return settled(uncertain)
			}
		}
		switch {
		case result == mayStop, result == passes && r.when == unknown:
			uncertain = true
		case r.when == always && (result == passes || result == dropped):
			if result == dropped && uncertain {
				return mayStop | blocked
			}
			return result
		}
	}
	return settled(uncertain)
}

// blocked is set on mayStop when the chain ends in a drop for all it did not accept.
const blocked fate = 0x80

func settled(uncertain bool) fate {
	if uncertain {
		return mayStop
	}
	return goesOn
}

// verdictOf turns a base chain's fate into a finding.
func verdictOf(subject, hook string, policyDrop bool, f fate) (Finding, bool) {
	drop := f == dropped || f == goesOn && policyDrop
	maybe := f == mayStop|blocked || f == mayStop && policyDrop
	how := "its rules drop"
	if policyDrop && f != dropped {
		how = "its policy drops"
	}
	switch {
	case drop:
		return Finding{true, subject, fmt.Sprintf("%s every forwarded connection in hook %s, and a drop in any table is final; it needs a rule \"ct status dnat accept\"", how, hook)}, true
	case maybe:
		return Finding{false, subject, fmt.Sprintf("%s forwarded connections in hook %s that its other rules do not accept; a rule \"ct status dnat accept\" would let them all pass", how, hook)}, true
	}
	return Finding{}, false
}
