package patchdb

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
)

// largeText is a document of n packages, 800 bytes each.
func largeText(n int) json.RawMessage {
	var b strings.Builder
	b.WriteString(`{"server":{"name":"bench"},"packageData":{`)
	for i := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `"package-%04d":{"id":"package-%04d","title":"Package Number %d","status":{"main":"running","started":%d},`+
			`"hosts":{"main":"package-%d.local","admin":"10.0.%d.%d:443"},"notes":[%q],"tasks":[{"key":"configure","active":false},{"key":"admin-%d","active":true}]}`,
			i, i, i, 1700000000+i, i, i/250, i%250, strings.Repeat("what there is to say ", 20), i%10)
	}
	b.WriteString("}}")
	return json.RawMessage(b.String())
}

func BenchmarkOpen(b *testing.B) {
	ctx := context.Background()
	path := filepath.Join(b.TempDir(), "a.db")
	db, err := Create(path, Dump{Value: largeText(2000)}, Options{CompactEvery: -1})
	if err != nil {
		b.Fatal(err)
	}
	for i := range 3500 {
		if _, err := db.Put(ctx, Pointer(fmt.Sprintf("/packageData/package-%04d/status/started", i%2000)), i); err != nil {
			b.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		db, err := Open(path, Options{CompactEvery: -1})
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		db.Close()
		b.StartTimer()
	}
}

// BenchmarkUpdateCPU is an update without the disk's part.
func BenchmarkUpdateCPU(b *testing.B) {
	for _, n := range []int{20, 2000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			tx := &Tx{edit: editor{root: mustParse(b, largeText(n))}, writable: true}
			type status struct {
				Main    string `json:"main"`
				Started int    `json:"started"`
			}
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				i++
				p := Pointer(fmt.Sprintf("/packageData/package-%04d/status", i%n))
				if err := TxMutate(tx, p, func(s *status) error { s.Started++; return nil }); err != nil {
					b.Fatal(err)
				}
				newRevision(1, tx.edit.ops)
				tx.edit.ops = nil
			}
		})
	}
}

// BenchmarkWriters is durable updates by one writer and by 64.
func BenchmarkWriters(b *testing.B) {
	for _, n := range []int{1, 64} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			db, err := Create(filepath.Join(b.TempDir(), "a.db"), Dump{Value: largeText(64)}, Options{})
			if err != nil {
				b.Fatal(err)
			}
			defer db.Close()
			b.SetParallelism(max(1, n/2))
			var writers atomic.Int64
			put := func(w int64, i int) {
				p := Pointer(fmt.Sprintf("/packageData/package-%04d/status/started", w))
				if _, err := db.Put(context.Background(), p, i); err != nil {
					b.Error(err)
				}
			}
			if n == 1 {
				for i := 0; b.Loop(); i++ {
					put(0, i)
				}
				return
			}
			b.RunParallel(func(pb *testing.PB) {
				w := writers.Add(1) % 64
				for i := 0; pb.Next(); i++ {
					put(w, i)
				}
			})
		})
	}
}
