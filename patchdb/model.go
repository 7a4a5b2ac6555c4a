package patchdb

import (
	"context"

	"github.com/selfstead/selfstead/patchdb/internal/tree"
)

// Validator is what a typed value may implement, on itself or its pointer, to
// be checked after each read and before each write.
type Validator interface{ Validate() error }

// Get returns the value at p as a T, validated.
func Get[T any](db *DB, p Pointer) (T, error) {
	var v T
	err := db.View(func(tx *Tx) error {
		var err error
		v, err = TxGet[T](tx, p)
		return err
	})
	return v, err
}

// TxGet is Get within a transaction.
func TxGet[T any](tx *Tx, p Pointer) (T, error) {
	var v T
	if err := tx.Get(p, &v); err != nil {
		return v, err
	}
	return v, validate("get", p, &v)
}

// Mutate updates the value at p through a T: fn changes what it is given, and
// what it changed, and nothing else, is put back; members of the document that
// T does not know stay. An error of fn, or of Validate, leaves all as it was.
func Mutate[T any](ctx context.Context, db *DB, p Pointer, fn func(*T) error) (Revision, error) {
	return db.Update(ctx, func(tx *Tx) error { return TxMutate(tx, p, fn) })
}

// TxMutate is Mutate within a transaction.
func TxMutate[T any](tx *Tx, p Pointer, fn func(*T) error) error {
	tokens, err := tx.forWrite("mutate", p)
	if err != nil {
		return err
	}
	node, err := tx.node("mutate", p)
	if err != nil {
		return err
	}
	v, err := TxGet[T](tx, p)
	if err != nil {
		return err
	}
	before, err := tx.value(v)
	if err != nil {
		return &PointerError{"mutate", p, cause{ErrInvalid, err}}
	}
	if err := fn(&v); err != nil {
		return err
	}
	if err := validate("mutate", p, &v); err != nil {
		return err
	}
	after, err := tx.value(v)
	if err != nil {
		return &PointerError{"mutate", p, cause{ErrInvalid, err}}
	}
	return tx.edit.put(p, tokens, tree.Merge(node, before, after))
}

func validate[T any](op string, p Pointer, v *T) error {
	check, ok := any(v).(Validator)
	if !ok {
		check, ok = any(*v).(Validator)
	}
	if !ok {
		return nil
	}
	if err := check.Validate(); err != nil {
		return &PointerError{op, p, cause{ErrInvalid, err}}
	}
	return nil
}
