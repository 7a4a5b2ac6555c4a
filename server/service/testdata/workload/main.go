// Command workload is what runs in the test packages' subcontainers: a web
// server that says what it is and what it sees.
package main

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strconv"
	"syscall"
	"time"
)

func main() {
	name, port := os.Args[1], os.Args[2]
	born := time.Now().UnixNano()
	fmt.Println("workload", name, "started")
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "hello from %s\n", name) })
	http.HandleFunc("/born", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, born) })
	http.HandleFunc("/file", func(w http.ResponseWriter, r *http.Request) {
		text, err := os.ReadFile(r.FormValue("path"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusNotFound)
			return
		}
		w.Write(text)
	})
	http.HandleFunc("/get", func(w http.ResponseWriter, r *http.Request) {
		wait := 3 * time.Second
		if ms, err := strconv.Atoi(r.FormValue("ms")); err == nil {
			wait = time.Duration(ms) * time.Millisecond
		}
		c := http.Client{Timeout: wait}
		resp, err := c.Get(r.FormValue("url"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer resp.Body.Close()
		io.Copy(w, resp.Body)
	})
	http.HandleFunc("/ticks", func(w http.ResponseWriter, r *http.Request) {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for ; r.Context().Err() == nil; <-tick.C {
			fmt.Fprintln(w, "tick")
			w.(http.Flusher).Flush()
		}
	})
	http.HandleFunc("/eat", func(w http.ResponseWriter, r *http.Request) {
		mb, _ := strconv.Atoi(r.FormValue("mb"))
		kept := make([]byte, mb<<20)
		for i := 0; i < len(kept); i += 4096 {
			kept[i] = 1
		}
		fmt.Fprintln(w, len(kept))
		runtime.KeepAlive(kept)
		kept = nil
		debug.FreeOSMemory()
	})
	http.HandleFunc("/relay", func(w http.ResponseWriter, r *http.Request) {
		req, _ := http.NewRequestWithContext(r.Context(), "GET", r.FormValue("url"), nil)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer resp.Body.Close()
		for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
			fmt.Fprintln(w, lines.Text())
			w.(http.Flusher).Flush()
		}
	})
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	go func() {
		<-term
		fmt.Println("workload", name, "stops")
		os.Exit(0)
	}()
	fmt.Println(http.ListenAndServe(":"+port, nil))
	os.Exit(1)
}
