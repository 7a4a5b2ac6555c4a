package nat

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// member says what a JSON object may have under a name: nil for a value or a
// list of values, else the members of the object, or of each object in a list.
type member map[string]member

var (
	memberForward = member{
		"name":   nil,
		"source": {"addr": nil, "port": nil},
		"target": {"addr": nil, "prefix": nil, "port": nil},
		"count":  nil, "protocols": nil, "allowFrom": nil, "allowVia": nil,
	}
	memberConfig = member{"forwards": memberForward}
)

// strict refuses what encoding/json lets pass: members that are unknown, spelled
// in another case or given twice, of which only the last would count, and null,
// which would stand for a default. It names where they are.
func strict(doc []byte, members member) error {
	dec := json.NewDecoder(bytes.NewReader(doc))
	dec.UseNumber()
	if err := strictValue(dec, members, ""); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("text after the end of the document")
	}
	return nil
}

func strictValue(dec *json.Decoder, members member, at string) error {
	tok, err := dec.Token()
	if err != nil {
		return broken(err, at != "")
	}
	switch tok {
	case nil:
		return fmt.Errorf("%q is null; leave it out instead", at)
	case json.Delim('['):
		if strings.HasSuffix(at, "]") {
			return fmt.Errorf("%q is a list within a list", at)
		}
		for i := 0; dec.More(); i++ {
			if err := strictValue(dec, members, at+"["+strconv.Itoa(i)+"]"); err != nil {
				return err
			}
		}
	case json.Delim('{'):
		if members == nil {
			return fmt.Errorf("%q is an object", at)
		}
		if err := strictObject(dec, members, at); err != nil {
			return err
		}
	default:
		return nil
	}
	if _, err := dec.Token(); err != nil { // the closing bracket
		return broken(err, true)
	}
	return nil
}

// broken explains why there is no next token.
func broken(err error, within bool) error {
	if within && errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return errors.New(jsonReason(err))
}

func strictObject(dec *json.Decoder, members member, at string) error {
	seen := map[string]bool{}
	for dec.More() {
		tok, err := dec.Token()
		if err != nil {
			return broken(err, true)
		}
		name := tok.(string) // the decoder accepts no other key
		where := strings.TrimPrefix(at+"."+name, ".")
		inner, ok := members[name]
		if !ok {
			return fmt.Errorf("unknown field %q", where)
		}
		if seen[name] {
			return fmt.Errorf("%q is given twice", where)
		}
		seen[name] = true
		if err := strictValue(dec, inner, where); err != nil {
			return err
		}
	}
	return nil
}
