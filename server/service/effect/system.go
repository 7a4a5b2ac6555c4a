package effect

import (
	"context"
	"runtime/debug"
	"slices"

	"github.com/selfstead/selfstead/patchdb"
	"github.com/selfstead/selfstead/server/notification"
	"github.com/selfstead/selfstead/server/state"
)

var _ = register(map[string]method{
	"get-system-smtp":     typed(getSystemSMTP),
	"get-ssl-certificate": typed(getCertificate),
	"get-ssl-key":         typed(getKey),
	"notification.create": typed(createNotification, "level", "title", "message"),
	"git-info":            typed(gitInfo),
})

func getSystemSMTP(_ context.Context, h *Handler, p struct {
	Callback *int64 `json:"callback"`
}) (any, error) {
	h.watch(p.Callback, state.SMTPPointer)
	return optional[state.SMTP](h.DB, state.SMTPPointer)
}

type certificateParams struct {
	Hostnames []string `json:"hostnames"`
	Algorithm string   `json:"algorithm"`
	Callback  *int64   `json:"callback"`
}

func (p *certificateParams) check() error {
	if len(p.Hostnames) == 0 {
		return invalid("hostnames is empty")
	}
	switch p.Algorithm {
	case "":
		p.Algorithm = "ecdsa"
	case "ecdsa", "ed25519":
	default:
		return invalid("%q is not one of ecdsa, ed25519", p.Algorithm)
	}
	return nil
}

func getCertificate(ctx context.Context, h *Handler, p certificateParams) (any, error) {
	if err := p.check(); err != nil {
		return nil, err
	}
	return h.Host.Certificate(ctx, p.Hostnames, p.Algorithm, p.Callback)
}

func getKey(ctx context.Context, h *Handler, p certificateParams) (any, error) {
	if err := p.check(); err != nil {
		return nil, err
	}
	return h.Host.Key(ctx, p.Hostnames, p.Algorithm)
}

func createNotification(ctx context.Context, h *Handler, p struct {
	Level   string  `json:"level"`
	Title   string  `json:"title"`
	Message string  `json:"message"`
	Data    *string `json:"data"`
}) (any, error) {
	if !slices.Contains([]string{"success", "info", "warning", "error"}, p.Level) {
		return nil, invalid("%q is not one of success, info, warning, error", p.Level)
	}
	if len(p.Title)+len(p.Message) > 64<<10 || p.Data != nil && len(*p.Data) > 1<<20 {
		return nil, invalid("the notification is too long")
	}
	n := state.Notification{PackageID: &h.Package, Level: p.Level, Title: p.Title, Message: p.Message}
	if p.Data != nil {
		n.Code, n.Data = 2, *p.Data
	}
	return nil, h.updateOnce(ctx, func(tx *patchdb.Tx) error { return Notify(tx, n) })
}

// Notify adds a notification, giving it its id and time.
func Notify(tx *patchdb.Tx, n state.Notification) error {
	_, err := notification.Add(tx, n)
	return err
}

// gitInfo is the commit that the server was built from, "unknown" when the
// build does not say.
func gitInfo(context.Context, *Handler, none) (any, error) {
	commit := "unknown"
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				commit = s.Value
			}
		}
	}
	return commit, nil
}
