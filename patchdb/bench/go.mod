module github.com/selfstead/selfstead/patchdb/bench

go 1.26.0

require (
	github.com/mattn/go-sqlite3 v1.14.53
	github.com/selfstead/selfstead v0.0.0
	go.etcd.io/bbolt v1.5.0
)

require (
	github.com/evanphx/json-patch/v5 v5.9.11 // indirect
	golang.org/x/sys v0.50.0 // indirect
)

replace github.com/selfstead/selfstead => ../..
