package patchdb

import (
	"os"
	"os/signal"
	"strconv"
	"syscall"
)

// limitEnv is how long a writer's files may become.
const limitEnv = "PATCHDB_TEST_LIMIT"

func limitFiles() error {
	s := os.Getenv(limitEnv)
	if s == "" {
		return nil
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return err
	}
	signal.Ignore(syscall.SIGXFSZ)
	return syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: n, Max: n})
}
