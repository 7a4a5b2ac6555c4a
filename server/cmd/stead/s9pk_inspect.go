package main

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strconv"
	"strings"
	"text/tabwriter"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/selfstead/selfstead/s9pk"
	"github.com/selfstead/selfstead/s9pk/merkle"
	"github.com/selfstead/selfstead/s9pk/validate"
)

// entryJSON is one entry as `inspect --json` and `list --json` print it.
type entryJSON struct {
	Path     string `json:"path"`
	Type     string `json:"type"` // "file", "directory" or "missing"
	Hash     string `json:"hash"`
	Size     uint64 `json:"size"`     // of a directory: the signed bound of its table
	Position uint64 `json:"position"` // 0 for missing entries, which have none
}

// entriesOf lists what is below path, parents first.
func entriesOf(d *merkle.Directory, prefix string) []entryJSON {
	list := []entryJSON{}
	d.Walk(func(path string, e *merkle.Entry) error { // never fails: the callback does not
		list = append(list, entryJSON{prefix + path, e.Kind.String(), e.Hash.String(), e.Size, e.Position})
		return nil
	})
	return list
}

type inspection struct {
	Signer      string          `json:"signer"`
	RootSighash string          `json:"rootSighash"`
	RootMaxsize uint64          `json:"rootMaxsize"`
	Manifest    json.RawMessage `json:"manifest"` // null where there is none
	Entries     []entryJSON     `json:"entries"`
}

func newInspectCommand() *cobra.Command {
	var asJSON, lenient bool
	cmd := &cobra.Command{
		Use:   "inspect PACKAGE",
		Short: "Show signer, manifest and contents",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			a, err := openPackage(cmd.Context(), args[0], s9pk.Options{Lenient: lenient})
			if err != nil {
				return err
			}
			defer a.Close()
			c := a.Commitment()
			text, err := a.RawManifest()
			switch {
			case errors.Is(err, fs.ErrNotExist), errors.Is(err, s9pk.ErrMissing), errors.Is(err, s9pk.ErrKind):
				text = nil
			case err != nil && lenient:
				fmt.Fprintln(cmd.ErrOrStderr(), "warning: "+oneLine{err}.Error())
				text = nil
			case err != nil:
				return err
			}
			if !asJSON {
				return describe(cmd.OutOrStdout(), a, text)
			}
			if text != nil && !json.Valid(text) {
				// Any archive may have a file of this name; it holds no manifest then.
				fmt.Fprintln(cmd.ErrOrStderr(), "warning: manifest.json is not JSON")
				text = nil
			}
			return printJSON(cmd.OutOrStdout(), inspection{
				Signer: hex.EncodeToString(a.Signer()), RootSighash: c.RootSighash.String(), RootMaxsize: c.RootMaxsize,
				Manifest: bytes.TrimSpace(text), Entries: entriesOf(a.Root(), ""),
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().BoolVar(&lenient, "lenient", false, lenientHelp)
	return cmd
}

const lenientHelp = "look into a package that is refused as unsafe"

// describe prints what a person wants to know.
func describe(w io.Writer, a *opened, text []byte) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(name string, value any) { fmt.Fprintf(tw, "%s\t%s\n", name, shown(fmt.Sprint(value))) }
	if m, err := s9pk.ParseManifest(text); err != nil && text != nil {
		row("manifest", oneLine{err})
	} else if text != nil {
		row("package", fmt.Sprintf("%s %s", m.ID, m.Version))
		row("title", m.Title)
		row("about", m.Description.Short.For("en_US"))
		row("license", m.License)
		if m.GitHash != nil {
			row("git", *m.GitHash)
		}
		row("needs", "StartOS "+m.OSVersion.String())
		if m.HardwareRequirements.Arch != nil {
			row("arch", m.HardwareRequirements.Arch)
		}
	}
	c := a.Commitment()
	row("signer", hex.EncodeToString(a.Signer()))
	row("root", fmt.Sprintf("%s, at most %d bytes", c.RootSighash, c.RootMaxsize))
	row("size", fmt.Sprintf("%d bytes", a.Size()))
	fmt.Fprintln(tw)
	for _, e := range entriesOf(a.Root(), "") {
		fmt.Fprintf(tw, "%s\t%d\t%s\n", mark(e), e.Size, e.Hash[:16])
	}
	return tw.Flush()
}

// mark shows the kind of an entry in its path.
func mark(e entryJSON) string {
	switch e.Type {
	case "directory":
		return shown(e.Path + "/")
	case "missing":
		return shown(e.Path) + " (left out)"
	}
	return shown(e.Path)
}

// shown quotes text of a package that would do more on a terminal than stand there.
func shown(text string) string {
	for _, r := range text {
		if !unicode.IsGraphic(r) || r == utf8.RuneError {
			return strconv.Quote(text)
		}
	}
	return text
}

// breachJSON is a breach as `verify --json` prints it.
type breachJSON struct {
	Path    string `json:"path"`
	Field   string `json:"field,omitempty"` // of the manifest
	Reason  string `json:"reason"`
	Warning bool   `json:"warning"`
}

// breachesError names all breaches that are more than warnings, in one line.
func breachesError(breaches []validate.Breach) error {
	var texts []string
	for _, b := range breaches {
		if !b.Warning {
			texts = append(texts, strings.TrimPrefix(oneLine{b}.Error(), "s9pk: "))
		}
	}
	if len(texts) == 0 {
		return nil
	}
	return fmt.Errorf("%w: %s", errBreaches, strings.Join(texts, "; "))
}

func newVerifyCommand() *cobra.Command {
	var asJSON, asPackage bool
	var arch string
	cmd := &cobra.Command{
		Use:   "verify PACKAGE",
		Short: "Prove signature, tables and every body",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			a, err := openPackage(cmd.Context(), args[0], s9pk.Options{})
			if err != nil {
				return err
			}
			defer a.Close()
			a.expect(0, a.Size())
			bar := newProgress(cmd.ErrOrStderr())
			defer bar.done()
			if err := a.Verify(cmd.Context(), func(done, total int64) { bar.set("verify", done, total) }); err != nil {
				return err
			}
			bar.done()
			var breaches []validate.Breach
			if asPackage || arch != "" {
				breaches = validate.Package(a.Archive, arch)
			}
			bad := breachesError(breaches)
			if asJSON {
				list := []breachJSON{}
				for _, b := range breaches {
					list = append(list, breachJSON{b.Path, b.Field, b.Reason, b.Warning})
				}
				return errors.Join(bad, printJSON(cmd.OutOrStdout(), map[string]any{"ok": bad == nil, "breaches": list,
					"signer": hex.EncodeToString(a.Signer()), "commitment": a.Commitment(), "size": a.Size()}))
			}
			if bad != nil {
				return bad
			}
			for _, b := range breaches {
				fmt.Fprintln(cmd.ErrOrStderr(), "warning: "+oneLine{b}.Error())
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), "ok")
			return err
		},
	}
	cmd.Flags().BoolVar(&asPackage, "package", false, "also judge it as a package: everything a device needs is there")
	cmd.Flags().StringVar(&arch, "arch", "", "judge it as a package for a device of this `ARCH`")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}
