package v1

import "testing"

// FuzzOpen looks for panics in what reads headers and manifests.
func FuzzOpen(f *testing.F) {
	f.Helper()
	f.Add(build(f, sectionsOf(f)))
	f.Fuzz(func(_ *testing.T, b []byte) {
		a, err := open(b)
		if err != nil {
			return
		}
		m, err := a.Manifest()
		if err != nil {
			return
		}
		m.Images()
		if n, err := m.Convert(); err == nil {
			_, _ = n.MarshalJSON() // what it says is judged elsewhere
		}
	})
}
