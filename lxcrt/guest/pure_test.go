package guest

import (
	"bytes"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestParseSubcontainer(t *testing.T) {
	t.Parallel()
	o, err := parseSubcontainer(strings.Fields("--env-file=/i.env --user=app:x --workdir /w -e A=1 --env B=2=3 -eC=4 --pty-size 24:80:1:2 --force-tty /root cmd --user=z -- -x"))
	require.NoError(t, err)
	assert.Equal(t, &subcontainerOptions{
		ForceTTY: true, Size: &termSize{24, 80, 1, 2}, Env: []string{"A=1", "B=2=3", "C=4"},
		EnvFile: "/i.env", User: "app:x", Workdir: "/w", Root: "/root", Command: []string{"cmd", "--user=z", "--", "-x"},
	}, o)

	again, err := parseSubcontainer(o.args("exec-command")[2:])
	require.NoError(t, err)
	assert.True(t, again.Inner)
	again.Inner, again.ForceTTY, again.Size = false, o.ForceTTY, o.Size
	assert.Equal(t, o, again, "the inner half gets the same")

	o, err = parseSubcontainer([]string{"/root", "--", "--", "x"})
	require.NoError(t, err)
	assert.Equal(t, []string{"--", "x"}, o.Command)

	for _, bad := range []string{"", "--user", "--nope /r", "--force-tty=1 /r", "--env novalue /r", "--env =x /r", "--pty-size 1 /r", "--pty-size 1:99999 /r"} {
		_, err := parseSubcontainer(strings.Fields(bad))
		assert.ErrorIs(t, err, ErrUsage, bad)
		assert.Equal(t, exitUsage, exitCode(err))
	}
}

func TestParseBindMount(t *testing.T) {
	t.Parallel()
	m, err := parseBindMount(strings.Fields("--source /a --target /b --recursive --file --readonly --idmap 0:1000 --idmap 1:2:3"))
	require.NoError(t, err)
	assert.Equal(t, &bindMount{Source: "/a", Target: "/b", Recursive: true, File: true, ReadOnly: true,
		IDMap: []IDMap{{0, 1000, 1}, {1, 2, 3}}}, m)
	for _, bad := range []string{"--source /a", "--source /a --target /b x", "--source a --target b --idmap 1", "--source a --target b --idmap 1:2:0", "--source a --target b --idmap 1:-2"} {
		_, err := parseBindMount(strings.Fields(bad))
		assert.ErrorIs(t, err, ErrUsage, bad)
	}
}

func TestSplitRoot(t *testing.T) {
	t.Parallel()
	for path, want := range map[string][2]string{
		"/media/startos/subcontainers/A/data/x":       {"/media/startos/subcontainers/A", "data/x"},
		"/media/startos/subcontainers/A":              {"/media/startos/subcontainers/A", ""},
		"/media/startos/subcontainers/A/../../../etc": {"/", "media/etc"},
		"/media/startos/volumes/main/a/b":             {"/media/startos/volumes/main", "a/b"},
		"/media/startos/volumes/main//":               {"/media/startos/volumes/main", ""},
		"/media/startos/assets//sub":                  {"/media/startos/assets", "sub"},
		"/media/startos/assets":                       {"/", "media/startos/assets"},
		"/etc/x":                                      {"/", "etc/x"},
	} {
		root, rest := splitRoot(path)
		assert.Equal(t, want, [2]string{root, rest}, path)
	}
}

func TestResolveUser(t *testing.T) {
	t.Parallel()
	const passwd = "root:x:0:0:root:/root:/bin/bash\nbroken\nbad:x:y:0::/:\napp:x:1000:1001:App:/home/app:/bin/sh\r\nlast:x:5:6::/l:"
	const group = "root:x:0:\napp:x:1001:\nwheel:x:10:app,last\naudio:x:29:other, app"
	for spec, want := range map[string]credentials{
		"":            {0, 0, nil, "/root", "/bin/bash"},
		"root":        {0, 0, nil, "/root", "/bin/bash"},
		"app":         {1000, 1001, []uint32{10, 29}, "/home/app", "/bin/sh"},
		"1000":        {1000, 1001, []uint32{10, 29}, "/home/app", "/bin/sh"},
		"app:audio":   {1000, 29, []uint32{10, 29}, "/home/app", "/bin/sh"},
		"app:77":      {1000, 77, []uint32{10, 29}, "/home/app", "/bin/sh"},
		"4242":        {4242, 0, nil, "", ""},
		"4242:wheel":  {4242, 10, nil, "", ""},
		":wheel":      {0, 10, nil, "/root", "/bin/bash"},
		"last:":       {5, 6, []uint32{10}, "/l", ""},
		"4242:424242": {4242, 424242, nil, "", ""},
	} {
		got, err := resolveUser(spec, passwd, group)
		assert.NoError(t, err, spec)
		assert.Equal(t, want, got, spec)
	}
	for _, bad := range []string{"nobody", "app:nogroup", "-1", "4294967295"} {
		_, err := resolveUser(bad, passwd, group)
		assert.Error(t, err, bad)
	}
}

func TestEnviron(t *testing.T) {
	t.Parallel()
	e := newEnviron([]string{"A=1", "B=2", "A=3", "=bad", "noequals"})
	e.set("C=4")
	e.setDefault("B", "other")
	e.setDefault("D", "new")
	assert.Equal(t, []string{"A=3", "B=2", "C=4", "D=new"}, e.list)

	var warn bytes.Buffer
	list, err := readEnvFile(strings.NewReader("X=1\n\nnope\n=x\nY=a=b\nZ= "), &warn)
	assert.NoError(t, err)
	assert.Equal(t, []string{"X=1", "Y=a=b", "Z= "}, list)
	assert.Equal(t, 2, strings.Count(warn.String(), "\n"))
}

func TestDefaultGateway(t *testing.T) {
	t.Parallel()
	const table = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n" +
		"eth0\t0003000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n" +
		"eth0\t00000000\t0103000A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
	ip, ok := defaultGateway(table)
	assert.True(t, ok)
	assert.Equal(t, "10.0.3.1", ip.String())
	_, ok = defaultGateway("Iface\tDestination\n")
	assert.False(t, ok)
}
