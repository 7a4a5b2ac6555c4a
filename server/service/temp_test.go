package service_test

import (
	"os"
	"path/filepath"
)

func tempLayer(dir string) (string, error) {
	if _, err := os.Stat(dir); err == nil {
		return dir, nil // a running container uses it
	}
	for _, d := range []string{"usr/bin", "usr/lib/startos/init", "usr/lib/startos/package"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return "", err
		}
	}
	os.Chmod(dir, 0o755)
	for from, to := range map[string]string{"../embedded/dist/start-container": "usr/bin/start-container", "../../lxcrt/guest/node/dist/index.js": "usr/lib/startos/init/index.js"} {
		data, err := os.ReadFile(from)
		if err != nil {
			return "", err
		}
		if err := os.WriteFile(filepath.Join(dir, to), data, 0o755); err != nil {
			return "", err
		}
	}
	return dir, nil
}
