package e2e

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// packageShape is the members of the parts of a package in the document, by
// their place; "*" is every member. They are those of the StartOS data model but
// for what is ours: the entry itself has state, desiredState and what its owner
// sets or the server counts. Left out are storeExposedDependents, which nothing
// reads, and what installingInfo says of progress, which is an operation's.
var packageShape = map[string]string{
	"":                                "actions currentDependencies desiredState developerKey hosts icon lastBackup outboundGateway plugin registry s9pk state stateInfo statusInfo tasks",
	"stateInfo":                       "manifest state",
	"statusInfo":                      "desired error health started",
	"statusInfo/desired":              "main",
	"statusInfo/health/*":             "message name result",
	"currentDependencies/*":           "healthChecks icon kind title versionRange",
	"actions/*":                       "allowedStatuses description group hasInput name visibility warning",
	"hosts/*":                         "bindingRanges bindings portForwards privateDomains publicDomains",
	"hosts/*/bindings/*":              "addresses enabled interfaces net options",
	"hosts/*/bindings/*/options":      "addSsl preferredExternalPort secure",
	"hosts/*/bindings/*/net":          "assignedPort assignedSslPort",
	"hosts/*/bindings/*/addresses":    "available disabled enabled guaAccess",
	"hosts/*/bindings/*/interfaces/*": "addressInfo description id masked name type",
	"hosts/*/bindings/*/interfaces/*/addressInfo": "hostId internalPort scheme sslScheme suffix username",
	"hosts/*/bindingRanges/*":                     "addresses enabled externalStartPort interface numberOfPorts",
	"hosts/*/bindingRanges/*/addresses":           "available disabled enabled guaAccess",
	"tasks/*":                                     "active task",
	"tasks/*/task":                                "actionId input packageId reason severity when",
}

// shape checks the members of every part of a package's entry.
func (a *api) shape(t *testing.T, id string) {
	t.Helper()
	var doc struct {
		Value struct {
			PackageData map[string]any `json:"packageData"`
		}
	}
	a.want(t, 200, "GET", "/v1/state", nil, &doc)
	seen := map[string]bool{}
	var look func(at string, v any)
	look = func(at string, v any) {
		members, ok := v.(map[string]any)
		if !ok {
			return
		}
		names := []string{}
		for name := range members {
			names = append(names, name)
		}
		slices.Sort(names)
		if want, ok := packageShape[at]; ok {
			got := slices.DeleteFunc(names, func(n string) bool {
				return n == "access" && at == "actions/*" || at == "" && !slices.Contains(strings.Fields(want), n)
			})
			require.Equal(t, want, strings.Join(got, " "), "%s of %s", at, id)
			seen[at] = true
		}
		for name, v := range members {
			next := strings.TrimPrefix(at+"/"+name, "/")
			if _, known := packageShape[next]; !known {
				if every := strings.TrimPrefix(at+"/*", "/"); isKnown(every) {
					next = every
				}
			}
			look(next, v)
		}
	}
	look("", doc.Value.PackageData[id])
	var missing []string
	for at := range packageShape {
		if !seen[at] {
			missing = append(missing, at)
		}
	}
	require.Empty(t, missing, "parts that %s does not have", id)
}

// isKnown reports whether a place, or one below it, has a shape.
func isKnown(at string) bool {
	for known := range packageShape {
		if known == at || strings.HasPrefix(known, at+"/") {
			return true
		}
	}
	return false
}
