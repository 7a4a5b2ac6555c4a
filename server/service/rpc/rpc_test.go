package rpc_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/selfstead/selfstead/server/service/rpc"
	"github.com/stretchr/testify/require"
)

func folder(t *testing.T) (*rpc.Folder, string) {
	t.Helper()
	dir := t.TempDir()
	f, err := rpc.OpenFolder(dir)
	require.NoError(t, err)
	t.Cleanup(func() { f.Close() })
	return f, dir
}

func serve(t *testing.T, h rpc.Handler, o rpc.ServerOptions) (*rpc.Folder, *rpc.Server) {
	t.Helper()
	f, _ := folder(t)
	l, err := f.Listen("host.sock", os.Geteuid())
	require.NoError(t, err)
	s := rpc.Serve(l, h, o)
	t.Cleanup(func() { s.Close() })
	return f, s
}

// ask sends text as it is, closes the sending side, and reads every line.
func ask(t *testing.T, f *rpc.Folder, text string) []string {
	t.Helper()
	conn, err := f.Dial(t.Context(), "host.sock")
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, conn.SetDeadline(time.Now().Add(10*time.Second)))
	_, err = conn.Write([]byte(text))
	require.NoError(t, err)
	require.NoError(t, conn.(*net.UnixConn).CloseWrite())
	var lines []string
	s := bufio.NewScanner(conn)
	s.Buffer(nil, 8<<20)
	for s.Scan() {
		lines = append(lines, s.Text())
	}
	return lines
}

func echo(_ context.Context, c rpc.Call) (any, error) {
	switch c.Method {
	case "echo":
		return c.Params, nil
	case "null":
		return nil, nil
	case "fail":
		return nil, rpc.NewError(6, "Not Found", "no such thing")
	case "panic":
		panic("boom")
	}
	return nil, rpc.NewError(rpc.CodeMethodNotFound, "Method not found", c.Method)
}

func TestServerAnswers(t *testing.T) {
	f, _ := serve(t, echo, rpc.ServerOptions{})
	for in, want := range map[string]string{
		`{"id":1,"method":"echo","params":{"a":[1,2]},"stack":"x"}`: `{"jsonrpc":"2.0","result":{"a":[1,2]},"id":1}`,
		`{"id":"x","method":"null"}`:                                `{"jsonrpc":"2.0","result":null,"id":"x"}`,
		`{"method":"null","params":{}}`:                             `{"jsonrpc":"2.0","result":null,"id":null}`,
		`{"id":2,"method":"fail"}`:                                  `{"jsonrpc":"2.0","error":{"code":6,"message":"Not Found","data":{"details":"no such thing","debug":"","info":null}},"id":2}`,
		`{"id":3,"method":"nix"}`:                                   `{"jsonrpc":"2.0","error":{"code":-32601,"message":"Method not found","data":{"details":"nix","debug":"","info":null}},"id":3}`,
		`[{"id":1,"method":"null"},{"id":2,"method":"null"}]`:       `[{"jsonrpc":"2.0","result":null,"id":1},{"jsonrpc":"2.0","result":null,"id":2}]`,
	} {
		got := ask(t, f, in+"\n")
		require.Len(t, got, 1, in)
		require.JSONEq(t, want, got[0])
	}
	for in, code := range map[string]int{`{"id":1`: rpc.CodeParse, `[1,`: rpc.CodeParse, `7`: rpc.CodeInvalidRequest, `{"id":1}`: rpc.CodeInvalidRequest, `{"id":1,"method":"panic"}`: rpc.CodeInternal} {
		var answer struct{ Error rpc.Error }
		require.NoError(t, json.Unmarshal([]byte(ask(t, f, in+"\n")[0]), &answer))
		require.Equal(t, code, answer.Error.Code, in)
	}
}

// The last line may lack its newline, blank lines are nothing, and a caller
// that has closed its sending side still gets a large answer whole.
func TestServerFraming(t *testing.T) {
	big := strings.Repeat("ä", 1<<20)
	f, _ := serve(t, func(context.Context, rpc.Call) (any, error) { return big, nil }, rpc.ServerOptions{})
	conn, err := f.Dial(t.Context(), "host.sock")
	require.NoError(t, err)
	defer conn.Close()
	_, err = conn.Write([]byte("\n\n{\"id\":1,\"method\":\"x\"}"))
	require.NoError(t, err)
	require.NoError(t, conn.(*net.UnixConn).CloseWrite())
	var answer struct{ Result string }
	require.NoError(t, json.NewDecoder(conn).Decode(&answer))
	require.Equal(t, big, answer.Result)
}

// However a request is cut into pieces, inside a character too, it is one.
func TestServerPieces(t *testing.T) {
	f, _ := serve(t, echo, rpc.ServerOptions{})
	conn, err := f.Dial(t.Context(), "host.sock")
	require.NoError(t, err)
	defer conn.Close()
	r := bufio.NewReader(conn)
	for _, b := range []byte("{\"id\":1,\"method\":\"echo\",\"params\":\"ä€😀\"}\n") {
		_, err := conn.Write([]byte{b})
		require.NoError(t, err)
	}
	line, err := r.ReadString('\n')
	require.NoError(t, err)
	require.JSONEq(t, `{"jsonrpc":"2.0","result":"ä€😀","id":1}`, line)
	// A character in the place where the reader's own buffer ends, and requests
	// that come in one piece.
	for n := 4096 - 60; n < 4096-30; n++ {
		text := strings.Repeat("x", n) + "😀"
		_, err = fmt.Fprintf(conn, "{\"id\":2,\"method\":\"echo\",\"params\":\"%s\"}\n{\"id\":3,\"method\":\"null\"}\n", text)
		require.NoError(t, err)
		line, err = r.ReadString('\n')
		require.NoError(t, err)
		require.Contains(t, line, text)
		line, err = r.ReadString('\n')
		require.NoError(t, err)
		require.Contains(t, line, `"id":3`)
	}
}

// Callers that go away in the middle of a request or of its answer leave
// nothing behind.
func TestServerCuts(t *testing.T) {
	big := strings.Repeat("x", 3<<20)
	f, s := serve(t, func(context.Context, rpc.Call) (any, error) { return big, nil }, rpc.ServerOptions{MaxConns: 2, MaxLarge: 1})
	for i := range 20 {
		conn, err := f.Dial(t.Context(), "host.sock")
		require.NoError(t, err)
		switch i % 3 {
		case 0:
			_, err = conn.Write([]byte(`{"id":1,"method":"x"}` + "\n"))
			require.NoError(t, err)
			_, err = conn.Read(make([]byte, 100))
			require.NoError(t, err)
		case 1:
			_, err = conn.Write([]byte(`{"id":1,"meth`))
			require.NoError(t, err)
		default:
			_, err = conn.Write([]byte(`{"id":1,"method":"x","params":"` + big[:100<<10]))
			require.NoError(t, err)
		}
		conn.Close()
	}
	require.Len(t, ask(t, f, `{"id":1,"method":"x"}`+"\n"), 1, "the connections are free again")
	require.NoError(t, s.Close())
}

// A batch cannot ask for many times its own size.
func TestServerBatch(t *testing.T) {
	var runs atomic.Int32
	f, _ := serve(t, func(context.Context, rpc.Call) (any, error) {
		runs.Add(1)
		return strings.Repeat("x", 1<<20), nil
	}, rpc.ServerOptions{MaxLine: 3 << 20})
	got := ask(t, f, "["+strings.Repeat("1,", 1<<20)+"1]\n")
	require.Len(t, got, 1)
	require.Contains(t, got[0], "at most 64")
	require.Less(t, len(got[0]), 1000)
	require.Zero(t, runs.Load())
	got = ask(t, f, "["+strings.Repeat(`{"id":1,"method":"x"},`, 20)+`{"id":2,"method":"x"}]`+"\n")
	require.Len(t, got, 1)
	require.LessOrEqual(t, runs.Load(), int32(4))
	var answers []json.RawMessage
	require.NoError(t, json.Unmarshal([]byte(got[0]), &answers))
	require.Len(t, answers, 21)
	require.Contains(t, string(answers[20]), "more answers than fit")
}

func TestServerLimits(t *testing.T) {
	f, _ := serve(t, echo, rpc.ServerOptions{MaxLine: 1 << 20, MaxLarge: 1})
	long := `{"id":1,"method":"echo","params":"` + strings.Repeat("x", 2<<20) + `"}` + "\n"
	conn, err := f.Dial(t.Context(), "host.sock")
	require.NoError(t, err)
	go conn.Write([]byte(long)) // the server stops reading on the way
	line, err := bufio.NewReader(conn).ReadString('\n')
	require.NoError(t, err)
	require.Contains(t, line, "too long")
	conn.Close()
	// The permit for large requests was given back.
	fits := `{"id":1,"method":"echo","params":"` + strings.Repeat("x", 500<<10) + `"}` + "\n"
	for range 3 {
		require.Len(t, ask(t, f, fits), 1)
	}
}

// A container that holds every connection harms itself alone, and connections
// that end make room.
func TestServerConnections(t *testing.T) {
	f, _ := serve(t, echo, rpc.ServerOptions{MaxConns: 2})
	var held []net.Conn
	for range 2 {
		c, err := f.Dial(t.Context(), "host.sock")
		require.NoError(t, err)
		_, err = c.Write([]byte(`{"id":1,"method":"null"}` + "\n"))
		require.NoError(t, err)
		_, err = bufio.NewReader(c).ReadString('\n')
		require.NoError(t, err)
		held = append(held, c)
	}
	third, err := f.Dial(t.Context(), "host.sock")
	require.NoError(t, err)
	_, err = third.Write([]byte(`{"id":1,"method":"null"}` + "\n"))
	require.NoError(t, err)
	require.NoError(t, third.SetReadDeadline(time.Now().Add(50*time.Millisecond)))
	_, err = third.Read(make([]byte, 1))
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	held[0].Close()
	require.NoError(t, third.SetReadDeadline(time.Now().Add(10*time.Second)))
	_, err = bufio.NewReader(third).ReadString('\n')
	require.NoError(t, err)
}

func TestServerRunsEachCallOnce(t *testing.T) {
	var runs atomic.Int32
	gate := make(chan struct{})
	f, _ := serve(t, func(_ context.Context, c rpc.Call) (any, error) {
		n := runs.Add(1)
		<-gate
		return n, nil
	}, rpc.ServerOptions{})
	var wg sync.WaitGroup
	answers := make([]string, 4)
	for i := range answers {
		wg.Go(func() { answers[i] = ask(t, f, fmt.Sprintf(`{"id":%d,"method":"x","callId":"a"}`+"\n", i))[0] })
	}
	close(gate)
	wg.Wait()
	for i, a := range answers {
		require.JSONEq(t, fmt.Sprintf(`{"jsonrpc":"2.0","result":1,"id":%d}`, i), a)
	}
	require.Contains(t, ask(t, f, `{"id":9,"method":"x","callId":"b"}`+"\n")[0], `"result":2`)
	require.Contains(t, ask(t, f, `{"id":9,"method":"x"}`+"\n")[0], `"result":3`)
}

// What is remembered of calls is bounded.
func TestServerForgets(t *testing.T) {
	var runs atomic.Int32
	f, _ := serve(t, func(_ context.Context, c rpc.Call) (any, error) {
		runs.Add(1)
		if c.Method == "big" {
			return strings.Repeat("x", 1<<20), nil
		}
		return strings.Repeat("x", 1000), nil
	}, rpc.ServerOptions{})
	for range 2 {
		ask(t, f, `{"id":1,"method":"big","callId":"big"}`+"\n")
	}
	require.EqualValues(t, 2, runs.Swap(0), "a large answer is not kept")
	for i := range 400 {
		ask(t, f, fmt.Sprintf(`{"id":1,"method":"x","callId":"c%d"}`+"\n", i))
	}
	ask(t, f, `{"id":1,"method":"x","callId":"c399"}`+"\n")
	require.EqualValues(t, 400, runs.Load())
	ask(t, f, `{"id":1,"method":"x","callId":"c0"}`+"\n")
	require.EqualValues(t, 401, runs.Load(), "the oldest is forgotten")
}

// A call that the closing server breaks off is not answered with an error, so
// that its caller tries again; one that can end does.
func TestServerClose(t *testing.T) {
	began := make(chan struct{}, 1)
	h := func(ctx context.Context, c rpc.Call) (any, error) {
		began <- struct{}{}
		if c.Method == "slow" {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		return "done", nil
	}
	f, s := serve(t, h, rpc.ServerOptions{})
	got := make(chan []string, 1)
	go func() { got <- ask(t, f, `{"id":1,"method":"slow"}`+"\n") }()
	<-began
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	require.NoError(t, s.Shutdown(ctx))
	require.Empty(t, <-got)
	_, err := f.Dial(t.Context(), "host.sock")
	require.Error(t, err)
	require.NoError(t, s.Close())
}

// runtime is a peer that answers as a container's runtime does.
func runtime(t *testing.T, f *rpc.Folder, answer func(line string) string) {
	t.Helper()
	l, err := f.Listen("service.sock", os.Geteuid())
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				for s := bufio.NewScanner(c); s.Scan(); {
					if a := answer(s.Text()); a != "" {
						fmt.Fprintln(c, a)
					}
				}
			}()
		}
	}()
}

func newClient(t *testing.T, f *rpc.Folder) *rpc.Client {
	t.Helper()
	c := rpc.NewClient(func(ctx context.Context) (net.Conn, error) { return f.Dial(ctx, "service.sock") })
	t.Cleanup(func() { c.Close() })
	return c
}

func TestClient(t *testing.T) {
	f, _ := folder(t)
	notes := make(chan string, 1)
	runtime(t, f, func(line string) string {
		var req struct {
			ID     *int64
			Method string
			Params json.RawMessage
		}
		if json.Unmarshal([]byte(line), &req) != nil {
			return ""
		}
		switch {
		case req.ID == nil:
			notes <- line
			return ""
		case req.Method == "fail":
			return fmt.Sprintf(`{"jsonrpc":"2.0","id":%d,"error":{"code":0,"message":"object","data":{"details":"Error: boom","debug":"at x"}}}`, *req.ID)
		case req.Method == "hang":
			return ""
		}
		return fmt.Sprintf("\n"+`{"id":99999,"result":0}`+"\n"+`{"jsonrpc":"2.0","id":%d,"result":%q}`, *req.ID, line)
	})
	c := newClient(t, f)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			var line string
			if err := c.Call(t.Context(), "say", map[string]string{"text": "ä𝄞"}, &line); err != nil {
				t.Error(err)
			}
			if !strings.Contains(line, `"text":"\u00e4\ud834\udd1e"`) {
				t.Error("not escaped:", line)
			}
		})
	}
	wg.Wait()
	err := c.Call(t.Context(), "fail", nil, nil)
	var e *rpc.Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, "Error: boom", e.Details())
	require.Equal(t, "at x", e.Debug())
	require.EqualError(t, err, "rpc: code 0: boom")
	require.NoError(t, c.Notify(t.Context(), "callback", map[string]any{"id": 3, "args": []any{}}))
	require.JSONEq(t, `{"method":"callback","params":{"id":3,"args":[]}}`, <-notes)

	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, c.Call(ctx, "hang", nil, nil), context.DeadlineExceeded)
	require.NoError(t, c.Close())
	require.ErrorIs(t, c.Call(t.Context(), "say", nil, nil), rpc.ErrClosed)
}

func TestFolderFollowsNoLinks(t *testing.T) {
	f, dir := folder(t)
	elsewhere := t.TempDir()
	l, err := net.Listen("unix", filepath.Join(elsewhere, "s"))
	require.NoError(t, err)
	defer l.Close()
	require.NoError(t, os.Symlink(filepath.Join(elsewhere, "s"), filepath.Join(dir, "service.sock")))
	_, err = f.Dial(t.Context(), "service.sock")
	require.Error(t, err)
	require.NoError(t, os.Remove(filepath.Join(dir, "service.sock")))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "service.sock"), nil, 0o600))
	_, err = f.Dial(t.Context(), "service.sock")
	require.ErrorContains(t, err, "not a socket")

	// A link in the server's own place is replaced, not followed.
	require.NoError(t, os.Symlink(filepath.Join(elsewhere, "made"), filepath.Join(dir, "host.sock")))
	h, err := f.Listen("host.sock", os.Geteuid())
	require.NoError(t, err)
	defer h.Close()
	_, err = os.Lstat(filepath.Join(elsewhere, "made"))
	require.True(t, errors.Is(err, os.ErrNotExist))
}

func TestFolderAwait(t *testing.T) {
	f, _ := folder(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err := f.Await(ctx, "service.sock")
	require.ErrorIs(t, err, context.DeadlineExceeded)
	type result struct {
		conn net.Conn
		err  error
	}
	got := make(chan result, 1)
	go func() {
		c, err := f.Await(t.Context(), "service.sock")
		got <- result{c, err}
	}()
	runtime(t, f, func(string) string { return "" })
	r := <-got
	require.NoError(t, r.err)
	r.conn.Close()
}
