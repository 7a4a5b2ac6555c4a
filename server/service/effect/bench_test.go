package effect_test

import (
	"bufio"
	"fmt"
	"testing"
)

// The round trip of one effect as the runtime makes it: a connection, a line
// each way.
func BenchmarkEffect(b *testing.B) {
	for name, params := range map[string]string{
		"echo":          `{"message":"x"}`,
		"get-status":    `{"packageId":"other"}`,
		"get-host-info": `{"hostId":"none"}`,
		"set-health":    `{"id":"web","name":"Web","result":"success"}`, // unchanged after the first
	} {
		b.Run(name, func(b *testing.B) {
			x := newBench(b)
			line := fmt.Sprintf(`{"id":7,"method":%q,"params":%s,"callId":"`, name, params)
			for i := 0; b.Loop(); i++ {
				conn, err := x.folder.Dial(b.Context(), "host.sock")
				if err != nil {
					b.Fatal(err)
				}
				fmt.Fprintf(conn, "%s%d\"}\n", line, i)
				if _, err := bufio.NewReader(conn).ReadString('\n'); err != nil {
					b.Fatal(err)
				}
				conn.Close()
			}
		})
	}
}
