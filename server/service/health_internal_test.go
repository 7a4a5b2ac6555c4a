package service

import (
	"testing"
	"time"

	"github.com/selfstead/selfstead/server/state"
	"github.com/stretchr/testify/require"
)

func TestCheck(t *testing.T) {
	t.Parallel()
	type step struct {
		at   int    // seconds after the start
		said string // "" for none: only looked at
		want string
	}
	for name, steps := range map[string][]step{
		"comes up":                    {{0, "starting", "starting"}, {2, "success", "success"}},
		"fails in its grace":          {{1, "failure", "starting"}, {29, "", "starting"}, {30, "", "failure"}},
		"recovers in its grace":       {{1, "failure", "starting"}, {8, "success", "success"}},
		"fails after its grace":       {{40, "starting", "starting"}, {41, "failure", "failure"}},
		"one failure":                 {{1, "success", "success"}, {50, "failure", "success"}, {55, "success", "success"}, {70, "", "success"}},
		"flaps":                       {{1, "success", "success"}, {50, "failure", "success"}, {58, "success", "success"}, {59, "failure", "success"}, {68, "", "success"}, {69, "", "failure"}},
		"fails for good":              {{1, "success", "success"}, {50, "failure", "success"}, {60, "", "failure"}},
		"recovers":                    {{40, "failure", "failure"}, {50, "success", "failure"}, {54, "failure", "failure"}, {60, "success", "failure"}, {65, "", "success"}},
		"recovers while nobody looks": {{1, "success", "success"}, {50, "failure", "success"}, {80, "success", "failure"}, {85, "", "success"}},
		"other words":                 {{1, "success", "success"}, {50, "loading", "loading"}, {51, "disabled", "disabled"}, {52, "waiting", "waiting"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			started := time.Unix(1000, 0)
			var c checks
			said := ""
			for _, s := range steps {
				now := started.Add(time.Duration(s.at) * time.Second)
				if s.said != "" {
					said = s.said
					c.observe(map[string]state.HealthResult{"web": {Result: said}}, started, now)
				}
				require.Equal(t, s.want, c.shown("web", said, started, now), "at %d s", s.at)
			}
			c.observe(nil, started, started)
			require.Equal(t, "failure", c.shown("web", "failure", started, started), "without a history its word counts")
		})
	}
}
