package pack

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// maxManifest bounds what the bundle may give as its manifest.
const maxManifest = 1 << 20

// evaluate is run by node. The manifest goes to descriptor 3, since a bundle may
// print on the others while it is loaded, and the process ends there, since a
// bundle may leave timers behind.
const evaluate = `
const path = process.argv[1];
const { manifest } = require(path);
if (manifest === null || typeof manifest !== 'object' || Array.isArray(manifest)) {
  console.error('its export "manifest" is ' + (manifest === undefined ? 'missing' : 'no object'));
  process.exit(1);
}
let text = Buffer.from(JSON.stringify(manifest)), at = 0;
while (at < text.length) at += require('fs').writeSync(3, text, at);
process.exit(0);
`

// evaluateManifest runs the bundle in javascript with node and returns its
// manifest export as JSON.
func evaluateManifest(ctx context.Context, node, javascript string) (json.RawMessage, error) {
	entry, err := filepath.Abs(filepath.Join(javascript, "index.js"))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrProject, err)
	}
	if _, err := os.Stat(entry); err != nil {
		return nil, fmt.Errorf("%w: %w (is the bundle built?)", ErrProject, err)
	}
	if node == "" {
		if node, err = exec.LookPath("node"); err != nil {
			return nil, fmt.Errorf("%w: %w (Debian's nodejs has it)", ErrJavaScript, err)
		}
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrJavaScript, err)
	}
	defer r.Close()
	ctx, cancel := context.WithTimeoutCause(ctx, 2*time.Minute, errors.New("it does not end"))
	defer cancel()
	cmd := exec.CommandContext(ctx, node, "-e", evaluate, entry)
	cmd.Dir = filepath.Dir(entry)
	cmd.ExtraFiles = []*os.File{w}
	cmd.WaitDelay = 5 * time.Second
	var errs bytes.Buffer
	cmd.Stderr = &limited{w: &errs, left: 64 << 10}
	if err := cmd.Start(); err != nil {
		w.Close()
		return nil, fmt.Errorf("%w: %w", ErrJavaScript, err)
	}
	w.Close()
	text, rerr := io.ReadAll(io.LimitReader(r, maxManifest+1))
	r.Close()
	if err := cmd.Wait(); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, fmt.Errorf("%w: %s: %w: %s", ErrJavaScript, entry, err, explain(errs.String()))
	}
	if rerr != nil {
		return nil, fmt.Errorf("%w: %w", ErrJavaScript, rerr)
	}
	if len(text) > maxManifest {
		return nil, fmt.Errorf("%w: the manifest of %s is larger than %d bytes", ErrJavaScript, entry, maxManifest)
	}
	return text, nil
}

// explain is the line of a JavaScript error that says what is wrong.
func explain(stderr string) string {
	var first string
	for line := range strings.Lines(stderr) {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		if first == "" {
			first = line
		}
		if kind, _, ok := strings.Cut(line, ":"); ok && strings.HasSuffix(kind, "Error") && !strings.Contains(kind, " ") {
			return line
		}
	}
	return first
}

// limited drops what is beyond left bytes.
type limited struct {
	w    io.Writer
	left int
}

func (l *limited) Write(p []byte) (int, error) {
	k := min(len(p), l.left)
	l.left -= k
	if _, err := l.w.Write(p[:k]); err != nil {
		return 0, err
	}
	return len(p), nil
}
