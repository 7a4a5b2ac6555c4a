package guest

import (
	"fmt"
	"os"
	"time"
)

// openPipe makes a pipe for a child's output that every user inside may reopen
// by path: images link their log files to /dev/stdout, and their programs run
// as users of their own.
func openPipe() (r, w *os.File, err error) {
	r, w, err = os.Pipe()
	if err != nil {
		return nil, nil, fmt.Errorf("guest: pipe: %w", err)
	}
	if err := w.Chmod(0o666); err != nil {
		r.Close()
		w.Close()
		return nil, nil, fmt.Errorf("guest: pipe: %w", err)
	}
	return r, w, nil
}

// lingering is how long the output of processes that outlive the main one is
// still waited for.
const lingering = 200 * time.Millisecond

// drained waits until the reader of r is done: at the stream's end, or when
// nothing has come for a while after the last writer we know of ended. It
// gives up after a few rounds when someone keeps writing.
func drained(r *os.File, done <-chan struct{}) {
	for range 10 {
		_ = r.SetReadDeadline(time.Now().Add(lingering))
		select {
		case <-done:
			return
		case <-time.After(lingering + lingering/2):
		}
	}
}
