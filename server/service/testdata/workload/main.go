// Command workload is what runs in the test packages' subcontainers: a web
// server that says what it is and what it sees.
package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
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
		c := http.Client{Timeout: 3 * time.Second}
		resp, err := c.Get(r.FormValue("url"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer resp.Body.Close()
		io.Copy(w, resp.Body)
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
