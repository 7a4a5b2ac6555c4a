package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/selfstead/selfstead/patchdb"
	"github.com/selfstead/selfstead/patchdb/startos"
)

// newDBCommand is `stead db`: work on a patchdb file without a server.
func newDBCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "db",
		Short: "Read and change database files",
		Long: `Read and change database files: a JSON document, and the revisions that led to it.

A POINTER names a place in the document (RFC 6901): /packages/hello/state, or
the whole document if left out. VALUE and PATCH are files with JSON, or - for
standard input. Files of StartOS are read as they stand by dump, check and
import, and never changed.`,
	}
	cmd.AddCommand(dbDumpCommand(), dbPutCommand(), dbApplyCommand(), dbWatchCommand(), dbCheckCommand(),
		dbCompactCommand(), dbImportCommand(), dbExportCommand())
	return cmd
}

// dbPointer is the optional pointer among args.
func dbPointer(args []string, i int) patchdb.Pointer {
	if len(args) > i {
		return patchdb.Pointer(args[i])
	}
	return ""
}

// dbInput reads a file, or standard input for "-".
func dbInput(cmd *cobra.Command, name string) ([]byte, error) {
	if name == "-" {
		return io.ReadAll(cmd.InOrStdin())
	}
	return os.ReadFile(name)
}

// dbPrint writes one line of JSON.
func dbPrint(cmd *cobra.Command, v any) error {
	enc := json.NewEncoder(cmd.OutOrStdout())
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// exitConflict is the exit status where --expect names another revision than the
// database is at.
const exitConflict = 3

// dbOurs refuses what would change a file of StartOS, and an empty one: where
// there was a database it is what is left of it.
func dbOurs(path string) error {
	switch foreign, err := startos.Detect(path); {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return err
	case foreign && emptyFile(path):
		return fmt.Errorf("%s is empty: that is no database of ours, and may be one of StartOS; remove it for a new one to be made", path)
	case foreign:
		return fmt.Errorf("%s is a StartOS database, which is only read; \"stead db import\" makes one of ours from it", path)
	}
	return nil
}

func emptyFile(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.Mode().IsRegular() && st.Size() == 0
}

func dbDumpCommand() *cobra.Command {
	return &cobra.Command{
		Use: "dump FILE [POINTER]", Short: "Print the document, or a part of it, with its revision", Args: cobra.RangeArgs(1, 2),
		Long: `Print {"id":REVISION,"value":VALUE}. The file may be in use; it is not changed.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			foreign, err := startos.Detect(args[0])
			if err != nil {
				return err
			}
			var d patchdb.Dump
			if foreign {
				old, err := startos.Read(args[0])
				if err != nil {
					return err
				}
				dbTellLosses(cmd, old)
				d, err = old.At(dbPointer(args, 1))
				if err != nil {
					return err
				}
				return dbPrint(cmd, d)
			}
			db, err := patchdb.Open(args[0], patchdb.Options{ReadOnly: true})
			if err != nil {
				return err
			}
			defer db.Close()
			if d, err = db.Dump(dbPointer(args, 1)); err != nil {
				return err
			}
			return dbPrint(cmd, d)
		},
	}
}

// dbTellLosses says on standard error what a StartOS file held that does not count.
func dbTellLosses(cmd *cobra.Command, d *startos.Database) {
	if d.Backup {
		cmd.PrintErrln("read from the .bak file, which counts instead of the database")
	}
	if d.Dropped > 0 {
		cmd.PrintErrf("%d bytes at the end cannot be read and do not count\n", d.Dropped)
	}
	for _, p := range d.Failed {
		text, err := json.Marshal(p)
		if err == nil {
			cmd.PrintErrf("a patch that cannot be applied does not count: %s\n", text)
		}
	}
}

// dbExpect adds the flag of the optimistic lock, and returns the function that
// puts it before a change.
func dbExpect(cmd *cobra.Command) func(change func(tx *patchdb.Tx) error) func(tx *patchdb.Tx) error {
	id := cmd.Flags().Uint64("expect", 0, "refuse unless the database is at this `revision`; of a missing one it is 0")
	return func(change func(tx *patchdb.Tx) error) func(tx *patchdb.Tx) error {
		return func(tx *patchdb.Tx) error {
			if cmd.Flags().Changed("expect") {
				if err := tx.Expect(patchdb.RevisionID(*id)); err != nil {
					return &statusError{exitConflict, err}
				}
			}
			return change(tx)
		}
	}
}

// dbUpdate opens or creates the database, changes it, and prints the revision
// unless nothing changed. A change that is refused creates nothing.
func dbUpdate(cmd *cobra.Command, path string, change func(tx *patchdb.Tx) error) error {
	if err := dbOurs(path); err != nil {
		return err
	}
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		if _, _, err := (patchdb.Dump{Value: json.RawMessage("null")}).Update(change); err != nil {
			return err
		}
	}
	db, err := patchdb.Open(path, patchdb.Options{})
	if err != nil {
		return err
	}
	r, err := db.Update(cmd.Context(), change)
	if cerr := db.Close(); err == nil {
		err = cerr
	}
	if err != nil || len(r.Patch) == 0 {
		return err
	}
	return dbPrint(cmd, r)
}

func dbPutCommand() *cobra.Command {
	var parents bool
	var expected func(func(tx *patchdb.Tx) error) func(tx *patchdb.Tx) error
	cmd := &cobra.Command{
		Use: "put FILE POINTER VALUE", Short: "Set a value", Args: cobra.ExactArgs(3),
		Long: `Set the value at POINTER; what is there is changed only where it differs. A
missing database is created, unless the change is refused. Prints
{"id":REVISION,"patch":[…]}, or nothing where nothing changed. The exit status is
3 where --expect names another revision, 1 where anything else goes wrong.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			value, err := dbInput(cmd, args[2])
			if err != nil {
				return err
			}
			return dbUpdate(cmd, args[0], expected(func(tx *patchdb.Tx) error {
				if parents {
					return tx.PutAll(patchdb.Pointer(args[1]), json.RawMessage(value))
				}
				return tx.Put(patchdb.Pointer(args[1]), json.RawMessage(value))
			}))
		},
	}
	expected = dbExpect(cmd)
	cmd.Flags().BoolVarP(&parents, "parents", "p", false, "make missing parent objects")
	return cmd
}

func dbApplyCommand() *cobra.Command {
	var expected func(func(tx *patchdb.Tx) error) func(tx *patchdb.Tx) error
	cmd := &cobra.Command{
		Use: "apply FILE PATCH", Short: "Apply a JSON Patch", Args: cobra.ExactArgs(2),
		Long: `Apply a JSON Patch (RFC 6902), all of it or nothing. A missing database is
created, unless the patch is refused. Prints {"id":REVISION,"patch":[…]}, or
nothing where nothing changed. The exit status is 3 where --expect names another
revision, 1 where anything else goes wrong.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			text, err := dbInput(cmd, args[1])
			if err != nil {
				return err
			}
			patch, err := patchdb.ParsePatch(text)
			if err != nil {
				return err
			}
			return dbUpdate(cmd, args[0], expected(func(tx *patchdb.Tx) error { return tx.Apply(patch) }))
		},
	}
	expected = dbExpect(cmd)
	return cmd
}

func dbWatchCommand() *cobra.Command {
	return &cobra.Command{
		Use: "watch FILE [POINTER]", Short: "Print the value, and then each revision of it as it comes", Args: cobra.RangeArgs(1, 2),
		Long: `Print a line {"id":…,"value":…}, and a line {"id":…,"patch":[…]} for each revision
that concerns the place, until interrupted. The file may be in use.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := dbOurs(args[0]); err != nil {
				return err
			}
			return patchdb.Follow(cmd.Context(), args[0], dbPointer(args, 1), func(ev patchdb.Event) error {
				if ev.Dump != nil {
					return dbPrint(cmd, ev.Dump)
				}
				return dbPrint(cmd, ev.Revision)
			})
		},
	}
}

func dbCheckCommand() *cobra.Command {
	return &cobra.Command{
		Use: "check FILE", Short: "Read a whole database and report its state or its first damage", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			foreign, err := startos.Detect(args[0])
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			if foreign {
				d, err := startos.Read(args[0])
				if err != nil {
					return err
				}
				dbTellLosses(cmd, d)
				fmt.Fprintf(out, "a StartOS database at revision %d, %d patches\n", d.ID, d.Revisions)
				if d.Dropped > 0 || len(d.Failed) > 0 {
					return fmt.Errorf("%s is not sound", args[0])
				}
				return nil
			}
			r, err := patchdb.Check(args[0])
			if err != nil {
				return err
			}
			fmt.Fprintf(out, "sound at revision %d: a snapshot of revision %d and %d revisions, %d bytes\n", r.Revision, r.Snapshot, r.Revisions, r.Used)
			if r.Torn > 0 {
				fmt.Fprintf(out, "behind them %d bytes of a write that was not finished; they do not count\n", r.Torn)
			}
			return nil
		},
	}
}

func dbCompactCommand() *cobra.Command {
	return &cobra.Command{
		Use: "compact FILE", Short: "Rewrite a database without the revisions that led to its document", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := dbOurs(args[0]); err != nil {
				return err
			}
			if _, err := os.Stat(args[0]); err != nil {
				return err
			}
			db, err := patchdb.Open(args[0], patchdb.Options{CompactEvery: -1})
			if err != nil {
				return err
			}
			err = db.Compact(cmd.Context())
			if cerr := db.Close(); err == nil {
				err = cerr
			}
			return err
		},
	}
}

func dbImportCommand() *cobra.Command {
	return &cobra.Command{
		Use: "import STARTOS-FILE FILE", Short: "Make a new database of a StartOS one", Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			foreign, err := startos.Detect(args[0])
			if err != nil {
				return err
			}
			if !foreign {
				return fmt.Errorf("%s is not a StartOS database", args[0])
			}
			d, db, err := startos.Import(args[0], args[1], patchdb.Options{})
			if err != nil {
				return err
			}
			dbTellLosses(cmd, d)
			return db.Close()
		},
	}
}

func dbExportCommand() *cobra.Command {
	return &cobra.Command{
		Use: "export FILE STARTOS-FILE", Short: "Write the document as a StartOS database", Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := dbOurs(args[0]); err != nil {
				return err
			}
			db, err := patchdb.Open(args[0], patchdb.Options{ReadOnly: true})
			if err != nil {
				return err
			}
			defer db.Close()
			d, err := db.Dump("")
			if err != nil {
				return err
			}
			return startos.Export(cmd.Context(), d, args[1])
		},
	}
}
