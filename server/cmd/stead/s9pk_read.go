package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/selfstead/selfstead/s9pk"
	"github.com/selfstead/selfstead/s9pk/merkle"
	"github.com/selfstead/selfstead/s9pk/squashfs"
)

// innerJSON is a file of a squashfs member as `list --json` prints it.
type innerJSON struct {
	Path string `json:"path"` // with the member's
	Mode string `json:"mode"`
	UID  uint32 `json:"uid"`
	GID  uint32 `json:"gid"`
	Size int64  `json:"size"`
	Link string `json:"link,omitempty"`
}

func newListCommand() *cobra.Command {
	var asJSON, long, lenient bool
	cmd := &cobra.Command{
		Use:   "list PACKAGE[!/PATH]",
		Short: "List what a package holds, or one of its squashfs members",
		Example: `  stead s9pk list app.s9pk
  stead s9pk list app.s9pk!/javascript.squashfs/
  stead s9pk list https://example.org/app.s9pk!/images/x86_64/main.squashfs/etc`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			name, p := splitPackage(args[0])
			a, err := openPackage(cmd.Context(), name, s9pk.Options{Lenient: lenient})
			if err != nil {
				return err
			}
			defer a.Close()
			at, err := a.locate(cmd.Context(), p)
			if err != nil {
				return err
			}
			if at.image != nil {
				return listImage(cmd.OutOrStdout(), at, asJSON, long)
			}
			return listEntries(cmd.OutOrStdout(), a.Root(), at, asJSON, long)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().BoolVarP(&long, "long", "l", false, "with sizes and hashes, or modes and owners within members")
	cmd.Flags().BoolVar(&lenient, "lenient", false, lenientHelp)
	return cmd
}

func listEntries(w io.Writer, root *merkle.Directory, at *inside, asJSON, long bool) error {
	var list []entryJSON
	switch e := at.entry; {
	case e == nil:
		list = entriesOf(root, "")
	case e.Kind == merkle.KindDirectory:
		list = entriesOf(e.Dir, at.path+"/")
	default:
		list = []entryJSON{{at.path, e.Kind.String(), e.Hash.String(), e.Size, e.Position}}
	}
	if asJSON {
		return printJSON(w, list)
	}
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, e := range list {
		if long {
			fmt.Fprintf(tw, "%s\t%d\t%s\n", e.Hash, e.Size, mark(e))
		} else {
			fmt.Fprintln(tw, mark(e))
		}
	}
	return tw.Flush()
}

func listImage(w io.Writer, at *inside, asJSON, long bool) error {
	list := []innerJSON{}
	add := func(p string, fi fs.FileInfo) {
		e := innerJSON{Path: path.Join(at.path, p), Mode: fi.Mode().String(), Size: fi.Size()}
		if fi.IsDir() {
			e.Path += "/"
		}
		if st, ok := fi.Sys().(*squashfs.Info); ok {
			e.UID, e.GID, e.Link = st.UID, st.GID, st.Link
		}
		list = append(list, e)
	}
	top, err := at.image.Lstat(at.inner)
	if err == nil && !top.IsDir() {
		add(at.inner, top)
	} else if err == nil {
		err = fs.WalkDir(at.image, at.inner, func(p string, d fs.DirEntry, err error) error {
			if err != nil || p == at.inner {
				return err
			}
			fi, err := d.Info()
			if err == nil {
				add(p, fi)
			}
			return err
		})
	}
	if err != nil {
		return fmt.Errorf("%s: %w", at.path, err)
	}
	if asJSON {
		return printJSON(w, list)
	}
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, e := range list {
		name := shown(e.Path)
		if e.Link != "" && long {
			name += " -> " + shown(e.Link)
		}
		if long {
			fmt.Fprintf(tw, "%s\t%d/%d\t%d\t%s\n", e.Mode, e.UID, e.GID, e.Size, name)
		} else {
			fmt.Fprintln(tw, name)
		}
	}
	return tw.Flush()
}

func newCatCommand() *cobra.Command {
	var lenient bool
	cmd := &cobra.Command{
		Use:   "cat PACKAGE!/PATH | PACKAGE PATH",
		Short: "Print a file of a package, or of one of its squashfs members",
		Long: `Print a file of a package, or of one of its squashfs members. Nothing is printed
that has not been proven.`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			name, p := splitPackage(args[0])
			if len(args) == 2 {
				if p != "" {
					return errors.New("the path stands in both arguments")
				}
				p = args[1]
			}
			a, err := openPackage(cmd.Context(), name, s9pk.Options{Lenient: lenient})
			if err != nil {
				return err
			}
			defer a.Close()
			at, err := a.locate(cmd.Context(), p)
			if err != nil {
				return err
			}
			if at.image != nil {
				f, err := at.image.Open(at.inner)
				if err != nil {
					return fmt.Errorf("%s: %w", at.path, err)
				}
				defer f.Close()
				_, err = io.Copy(cmd.OutOrStdout(), f)
				return err
			}
			f, err := a.File(p)
			if err != nil {
				return err
			}
			r, err := a.member(cmd.Context(), f)
			if err != nil {
				return err
			}
			var content io.Reader = io.NewSectionReader(r, 0, f.Size)
			if whole, ok := r.(*s9pk.Reader); ok {
				content = whole // front to back: each group is fetched and proven once
			}
			_, err = io.Copy(cmd.OutOrStdout(), content)
			return err
		},
	}
	cmd.Flags().BoolVar(&lenient, "lenient", false, lenientHelp)
	return cmd
}
