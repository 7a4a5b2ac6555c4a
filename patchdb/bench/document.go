package main

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/selfstead/selfstead/patchdb"
)

// Package is one of the document's packages: about 800 bytes of JSON.
type Package struct {
	ID      string            `json:"id"`
	Title   string            `json:"title"`
	Version string            `json:"version"`
	State   map[string]any    `json:"stateInfo"`
	Status  Status            `json:"status"`
	Hosts   map[string]string `json:"hosts"`
	Notes   []string          `json:"notes"`
	Tasks   []Task            `json:"tasks"`
}

// Status is the part that updates change.
type Status struct {
	Main    string `json:"main"`
	Started int64  `json:"started"`
}

// Task is one element of a list.
type Task struct {
	Key    string `json:"key"`
	Active bool   `json:"active"`
}

func newPackage(i int) Package {
	id := fmt.Sprintf("package-%04d", i)
	return Package{
		ID: id, Title: "The Package Number " + fmt.Sprint(i), Version: fmt.Sprintf("%d.%d.%d:0", i%7, i%13, i%5),
		State:  map[string]any{"state": "installed", "manifest": map[string]any{"license": "MIT", "upstream": "https://example.org/" + id, "donation": nil}},
		Status: Status{"running", int64(1700000000 + i)},
		Hosts:  map[string]string{"main": id + ".local", "admin": fmt.Sprintf("10.0.%d.%d:443", i/250, i%250), "rpc": fmt.Sprintf("10.1.%d.%d:8332", i/250, i%250)},
		Notes:  []string{strings.Repeat("what there is to say of it ", 9), "second note of " + id},
		Tasks:  []Task{{"configure", false}, {"create-admin", i%2 == 0}, {"set-name", true}},
	}
}

// document has n packages.
func document(n int) json.RawMessage {
	var b strings.Builder
	b.WriteString(`{"server":{"name":"bench","revision":0},"packageData":{`)
	for i := range n {
		text, err := json.Marshal(newPackage(i))
		if err != nil {
			panic(err) // plain values marshal
		}
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, "%q:%s", fmt.Sprintf("package-%04d", i), text)
	}
	b.WriteString("}}")
	return json.RawMessage(b.String())
}

func statusOf(i int) patchdb.Pointer {
	return patchdb.Join("/packageData", fmt.Sprintf("package-%04d", i), "status")
}

// create makes a database of n packages.
func (b *bench) create(name string, n int, o patchdb.Options) (*patchdb.DB, error) {
	return patchdb.Create(filepath.Join(b.dir, name), patchdb.Dump{Value: document(n)}, o)
}
