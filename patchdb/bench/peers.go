package main

import (
	"database/sql"
	"fmt"
	"os"
	"path/filepath"

	_ "github.com/mattn/go-sqlite3"
	bolt "go.etcd.io/bbolt"
)

// bolt: 64 writers of one small value each, through Batch, which groups them.
func (b *bench) bolt() (float64, error) {
	path := filepath.Join(b.dir, "bolt.db")
	db, err := bolt.Open(path, 0o600, nil)
	if err != nil {
		return 0, err
	}
	defer os.Remove(path)
	defer db.Close()
	name := []byte("b")
	if err := db.Update(func(tx *bolt.Tx) error { _, err := tx.CreateBucket(name); return err }); err != nil {
		return 0, err
	}
	return b.many(64, func(w, i int) error {
		return db.Batch(func(tx *bolt.Tx) error {
			return tx.Bucket(name).Put([]byte(statusOf(w)), fmt.Append(nil, i))
		})
	})
}

// sqlite: the same in WAL mode with full sync, a connection for each writer.
func (b *bench) sqlite() (float64, error) {
	path := filepath.Join(b.dir, "lite.db")
	db, err := sql.Open("sqlite3", "file:"+path+"?_journal_mode=WAL&_synchronous=FULL&_busy_timeout=60000&_txlock=immediate")
	if err != nil {
		return 0, err
	}
	defer os.Remove(path)
	defer db.Close()
	if _, err := db.Exec("CREATE TABLE t (k TEXT PRIMARY KEY, v INTEGER)"); err != nil {
		return 0, err
	}
	return b.many(64, func(w, i int) error {
		_, err := db.Exec("INSERT INTO t VALUES (?, ?) ON CONFLICT (k) DO UPDATE SET v = excluded.v", string(statusOf(w)), i)
		return err
	})
}
