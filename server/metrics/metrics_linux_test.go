package metrics_test

import (
	"os"
	"runtime"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/selfstead/selfstead/server/metrics"
)

func TestRead(t *testing.T) {
	t.Parallel()
	h, err := metrics.Read(os.TempDir())
	require.NoError(t, err)
	assert.GreaterOrEqual(t, h.CPUs, runtime.NumCPU()) // affinity may leave us fewer
	assert.Positive(t, h.CPUSeconds["user"]+h.CPUSeconds["system"])
	assert.Len(t, h.CPUSeconds, 8)
	assert.Greater(t, h.MemoryTotal, h.MemoryAvailable)
	assert.Greater(t, h.MemoryAvailable, int64(1<<20))
	assert.GreaterOrEqual(t, h.DiskTotal, h.DiskAvailable)
	assert.Positive(t, h.DiskTotal)
	assert.Positive(t, h.Uptime)
	_, err = metrics.Read("/does/not/exist")
	assert.ErrorIs(t, err, os.ErrNotExist)
}

func TestText(t *testing.T) {
	t.Parallel()
	got := metrics.Text([]metrics.Family{
		{Name: "a_seconds", Counter: true, Unit: "seconds", Help: "A \"b\"\nc", Samples: []metrics.Sample{{[][2]string{{"x", "1\"\\\n"}, {"y", "2"}}, 1.5}}},
		{Name: "b", Help: "b", Samples: []metrics.Sample{{nil, 1 << 40}}},
		{Name: "none", Help: "n"},
	})
	assert.Equal(t, `# TYPE a_seconds counter
# UNIT a_seconds seconds
# HELP a_seconds A \"b\"\nc
a_seconds_total{x="1\"\\\n",y="2"} 1.5
# TYPE b gauge
# HELP b b
b 1.099511627776e+12
# TYPE none gauge
# HELP none n
# EOF
`, string(got))
}
