package guest

import (
	"fmt"
	"strconv"
	"strings"
)

// credentials are what a subcontainer's command runs as.
type credentials struct {
	UID, GID uint32
	Groups   []uint32 // supplementary
	Home     string   // "" when the user has no passwd entry
	Shell    string   // the same
}

// resolveUser finds spec ("user", "user:group", names or numbers, "" for root)
// in the texts of an image's /etc/passwd and /etc/group. A numeric user
// without an entry keeps group 0 and has no home.
func resolveUser(spec, passwd, group string) (credentials, error) {
	user, grp, hasGroup := strings.Cut(spec, ":")
	if user == "" {
		user = "0"
	}
	var c credentials
	uid, numeric := parseID(user)
	name, found := "", false
	for fields := range records(passwd, 7) {
		entryUID, ok := parseID(fields[2])
		if !ok || (numeric && entryUID != uid) || (!numeric && fields[0] != user) {
			continue
		}
		gid, ok := parseID(fields[3])
		if !ok {
			continue
		}
		c.UID, c.GID, c.Home, c.Shell, name, found = entryUID, gid, fields[5], fields[6], fields[0], true
		break
	}
	if !found {
		if !numeric {
			return c, fmt.Errorf("guest: user %q is not in the image's /etc/passwd", user)
		}
		c.UID = uid
	}
	groupFound := false
	groupID, groupNumeric := parseID(grp)
	for fields := range records(group, 4) {
		gid, ok := parseID(fields[2])
		if !ok {
			continue
		}
		if hasGroup && !groupNumeric && fields[0] == grp {
			groupID, groupFound = gid, true
		}
		if found && listed(fields[3], name) {
			c.Groups = append(c.Groups, gid)
		}
	}
	if hasGroup && grp != "" {
		if !groupNumeric && !groupFound {
			return c, fmt.Errorf("guest: group %q is not in the image's /etc/group", grp)
		}
		c.GID = groupID
	}
	return c, nil
}

// parseID reads a user or group id: decimal, below the invalid id 2^32-1.
func parseID(s string) (uint32, bool) {
	n, err := strconv.ParseUint(s, 10, 32)
	return uint32(n), err == nil && n != 1<<32-1
}

// records yields the fields of each complete line of a colon-separated table.
func records(text string, fields int) func(yield func([]string) bool) {
	return func(yield func([]string) bool) {
		for line := range strings.SplitSeq(text, "\n") {
			f := strings.Split(strings.TrimSuffix(line, "\r"), ":")
			if len(f) >= fields && !yield(f) {
				return
			}
		}
	}
}

func listed(members, name string) bool {
	for m := range strings.SplitSeq(members, ",") {
		if strings.TrimSpace(m) == name {
			return true
		}
	}
	return false
}
