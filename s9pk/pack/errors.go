package pack

import "errors"

// Sentinels for what callers branch on.
var (
	// ErrProject: the folder is not a service project, or lacks a part.
	ErrProject = errors.New("pack: unusable project")
	// ErrJavaScript: node is missing, or the bundle does not give a manifest.
	ErrJavaScript = errors.New("pack: javascript")
	// ErrArch: no architecture is left to pack for.
	ErrArch = errors.New("pack: architecture")
	// ErrGit: a git revision was demanded and there is none.
	ErrGit = errors.New("pack: git")
	// ErrInvalid: the package would not be accepted; the error lists every breach.
	ErrInvalid = errors.New("pack: invalid package")
)
