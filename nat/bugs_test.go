package nat_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// bugs are what programs of this kind have got wrong, and the ways in which a
// connection turns back (H), each with the tests that hold it here: by room
// where it is not this one. The names are those of our own list: R are mistakes
// that were made and mended elsewhere, Q are suspected ones. What is not for
// these rooms says whose it is.
var bugs = []struct{ id, what, tests, elsewhere string }{
	{"H1", "an outside client reaches a target and is seen as itself", "TestHairpin TestHairpinWireGuard", ""},
	{"H2", "the host reaches a target by its own address", "TestHairpin", ""},
	{"H3", "the host reaches a target by an address that it does not have", "TestHairpin TestHairpinWireGuard", ""},
	{"H4", "a sibling on the bridge reaches the target, also where clients are restricted", "TestHairpin TestRestricted", ""},
	{"H5", "a target reaches itself, with bridge netfilter on and off", "TestHairpin TestBridgePortFollowed TestBridgeRulesSwitchedOn", ""},
	{"H6", "a target reaches itself by way of a second host that publishes the first", "TestThroughTwoHosts", ""},
	{"H7", "a WireGuard peer reaches itself by the hub's address", "TestHairpinWireGuard", ""},
	{"H8", "a WireGuard peer reaches another one by the hub's address and keeps its own", "TestHairpinWireGuard", ""},
	{"H9", "the host reaches a target by a loopback address, and nobody else does", "TestLoopbackForward TestGuardComesFirst", ""},
	{"H10", "whether the router in front lets an inside client come back is found out", "probe.TestThroughARouter", ""},
	{"H11", "a restricted forward answers the LAN and refuses others", "TestRestricted", ""},
	{"H12", "a socket of the host answers by the gateway that was asked", "gateway.TestReplies", ""},
	{"H13", "so does a forwarded target, to networks of neighbours too", "gateway.TestReplies gateway.TestTransit gateway.TestDefault", ""},
	{"H14", "a service with a way out of its own answers by the way in", "gateway.TestSources", ""},
	{"H15", "a tunnel that is the way out does not swallow its own packets", "gateway.TestTunnel", ""},
	{"H16", "proxies that keep the client's address", "", "of a TLS proxy, which is not in these rooms"},
	{"H17", "all of that for IPv6", "TestHairpin TestRestricted gateway.TestReplies gateway.TestSources gateway.TestTunnel", ""},
	{"H18", "large first flights get through narrow links where nobody tells", "TestSegmentsFit", ""},

	{"R1", "masquerade looked at the source, which the host had chosen otherwise", "TestHairpin", ""},
	{"R2", "a WireGuard peer's answer to itself took a short cut", "TestHairpinWireGuard", ""},
	{"R3", "containers could not use what was restricted to the LAN", "TestRestricted TestHairpin", ""},
	{"R4", "all clients looked like the gateway", "TestHairpin", ""},
	{"R5", "UDP was forgotten", "TestHairpin TestRanges", ""},
	{"R6", "answers of the host's own sockets left by the default gateway", "gateway.TestReplies", ""},
	{"R7", "local answers were marked, but not routed again", "gateway.TestReplies", ""},
	{"R8", "neighbours were lost when another way out was chosen", "gateway.TestDefault gateway.TestTunnel", ""},
	{"R9", "marks of others were overwritten", "gateway.TestForeignMarks gateway.TestTunnel", ""},
	{"R10", "rules were there twice, or not at all", "gateway.TestIdempotent TestApplyRandom", ""},
	{"R11", "two writers stumbled over each other's rules", "TestConflict gateway.TestIdempotent", ""},
	{"R12", "a change for one took connections from the others", "TestKilled TestMoves gateway.TestSwitch", ""},
	{"R13", "a gateway that came late, or again with another index, had no rules", "gateway.TestWatch gateway.TestNoLeak gateway.TestSlots", ""},
	{"R15", "a port led to a container that was gone", "TestFlows TestDeadProcessFlows", ""},
	{"R16", "an old owner of a port won over the new one", "TestValidate TestFlows", ""},
	{"R18", "a range could not be resized, nor end at the last port", "TestMoves TestWhatMoves TestPlanFollowsChanges ports.TestRangeEnds ports.TestMove", ""},
	{"R19", "ranges had no rules, and their ports were never given back", "TestRanges ports.TestAgainstModel", ""},
	{"R21", "a router's mapping led to the container's port", "portmap.TestRequests portmap.TestAgainstMiniupnpd", ""},
	{"R22", "a mapping could not lead to another port of the host", "portmap.TestAgainstMiniupnpd", ""},
	{"R23", "a router that the address is not on was asked", "portmap.TestRouterIsNeighbour", ""},
	{"R24", "of several names on one port only the last worked", "", "an extension for names, which our clients do not speak"},
	{"R25", "a question to one router left by another link", "portmap.TestRouterIsNeighbour portmap.TestRequests", ""},
	{"R26", "a router that does not answer held everything up", "portmap.TestBadGateways", ""},
	{"R27", "a mapping that cannot be had was asked for again and again", "portmap.TestKeeper", ""},
	{"R28", "a mapping that failed once waited for long", "portmap.TestKeeperTriesAgain", ""},
	{"R29", "a service could open ports on the router", "TestNoPortMapping", ""},
	{"R40", "a gateway without IPv6 had nothing at all", "gateway.TestNoIPv6 gateway.TestRareKinds", ""},
	{"R41", "name servers of a tunnel were not asked", "", "of the resolver"},
	{"R42", "a router's link-local address lacked its link", "portmap.TestLinkLocalRouter gateway.TestWatch", ""},
	{"R43", "IPv6 forwards went one way", "TestHairpin TestRanges", ""},
	{"R45", "a container's passing address became the target", "", "who names the target chooses its address"},
	{"R47", "a tunnel's configuration let only some destinations through", "", "who makes the gateway widens what its peer is allowed; what it says is kept"},
	{"R49", "an exported tunnel was refused for bits of hosts", "wg.TestParse", ""},
	{"R50", "TLS hung behind tunnels", "TestSegmentsFit", ""},
	{"R51", "an answer left by another address than the question came to", "gateway.TestReplies", ""},
	{"R54", "settings of the whole host were loosened", "gateway.TestReplies TestLoopbackForward TestKilled", ""},
	{"R55", "two that overlap were both taken", "TestValidate ports.TestReserve ports.TestAgainstModel", ""},
	{"R56", "one silently took the other's place, and what was gone stayed", "TestValidate TestApplyRandom TestNothingLeaks", ""},
	{"R58", "a probe's socket clashed with listeners", "probe.TestThroughARouter", ""},
	{"R59", "one service out of order, and no address was known", "probe.TestThroughARouter", ""},
	{"R60", "a known address was replaced by none", "probe.TestEchoAnswersThatAreWrong", ""},
	{"R62", "one link that vanished stopped all", "TestLinksThatVanish gateway.TestNoLeak gateway.TestWatch", ""},
	{"R91", "a way out of one's own took the answers with it, or not IPv6", "gateway.TestSources gateway.TestNoLeak", ""},

	{"Q1", "proxies that keep a local client's address", "", "of a TLS proxy, which is not in these rooms"},
	{"Q2", "IPv6 leaks around a chosen gateway", "gateway.TestNoLeak gateway.TestTunnel", ""},
	{"Q3", "a forward of a loopback address hangs", "TestLoopbackForward", ""},
	{"Q4", "subnets of a hub reach each other", "", "who runs a hub says what passes between its peers; we open what is forwarded"},
	{"Q5", "a tunnel has no router to ask for ports", "portmap.TestRouterIsNeighbour", ""},
	{"Q6", "a tunnel that is down cannot be removed", "wg.TestTunnel", ""},
	{"Q7", "traffic leaves by another gateway when the chosen one is down", "gateway.TestNoLeak gateway.TestTunnel", ""},
	{"Q9", "a neighbour with a route gets around a restriction", "TestOnlyThroughItsForward TestForeignTranslation", ""},
	{"Q11", "a forward that leads elsewhere is gone for a moment", "TestWhatMoves TestMoves TestKilled", ""},
	{"Q12", "what a dead process left shadows what is new", "TestKilled TestKilledWhileReplacing TestDeadProcessFlows", ""},
	{"Q20", "gateways for the way out alone publish too", "", "who makes the forwards chooses their addresses"},
	{"Q21", "a host with a private address behind its public one", "TestHairpin probe.TestThroughARouter", ""},
	{"Q22", "a change to one peer cuts the tunnels of others", "wg.TestTunnel", ""},
	{"Q23", "what was granted, what comes back and what others see are one answer", "probe.TestThroughARouter", ""},
	{"Q24", "link-local addresses are offered", "", "of the resolver and of who lists addresses"},
	{"Q25", "a forward leads to the host itself and never arrives", "TestTargetOnThisHost TestLoopbackForward", ""},
}

// TestBugs looks for the tests that are named: each must be there.
func TestBugs(t *testing.T) {
	t.Parallel()
	there := map[string]bool{}
	for _, room := range []string{"", "gateway", "portmap", "ports", "probe", "wg"} {
		files, err := filepath.Glob(filepath.Join(".", room, "*_test.go"))
		require.NoError(t, err)
		for _, name := range files {
			text, err := os.ReadFile(name)
			require.NoError(t, err)
			f, err := parser.ParseFile(token.NewFileSet(), name, text, parser.SkipObjectResolution)
			require.NoError(t, err)
			for _, d := range f.Decls {
				if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && strings.HasPrefix(fn.Name.Name, "Test") {
					there[strings.TrimPrefix(room+"."+fn.Name.Name, ".")] = true
				}
			}
		}
	}
	seen := map[string]bool{}
	for _, b := range bugs {
		require.False(t, seen[b.id], b.id)
		seen[b.id] = true
		require.NotEmpty(t, b.what, b.id)
		require.NotEqual(t, b.tests == "", b.elsewhere == "", "%s has tests, or somebody else has it", b.id)
		for _, name := range strings.Fields(b.tests) {
			require.True(t, there[name], "%s: %s does not exist", b.id, name)
		}
	}
}
