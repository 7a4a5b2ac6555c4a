package effect

import "context"

var _ = register(map[string]method{
	"subcontainer.create-fs":  typed(createFS),
	"subcontainer.destroy-fs": typed(destroyFS),
	"mount":                   typed(mount),
	"selfstead.bind-mount":    typed(bindMount),
})

func createFS(ctx context.Context, h *Handler, p struct {
	ImageID ID      `json:"imageId"`
	Name    *string `json:"name"`
}) (any, error) {
	if err := p.ImageID.check(); err != nil {
		return nil, err
	}
	name := "subcontainer-" + string(p.ImageID)
	if p.Name != nil {
		name = *p.Name
	}
	path, guid, err := h.Host.CreateFS(ctx, string(p.ImageID), name)
	if err != nil {
		return nil, err
	}
	return [2]string{path, guid}, nil
}

func destroyFS(ctx context.Context, h *Handler, p struct {
	GUID string `json:"guid"`
}) (any, error) {
	return nil, h.Host.DestroyFS(ctx, p.GUID)
}

// MountTarget is the volume that a mount shows.
type MountTarget struct {
	PackageID ID      `json:"packageId"`
	VolumeID  string  `json:"volumeId"`
	Subpath   *string `json:"subpath"`
	ReadOnly  bool    `json:"readonly"`
	IDMap     []IDMap `json:"idmap"`
}

// IDMap shows ids FromID.. of the volume as ToID.. .
type IDMap struct {
	FromID uint32 `json:"fromId"`
	ToID   uint32 `json:"toId"`
	Range  uint32 `json:"range"`
}

func mount(ctx context.Context, h *Handler, p struct {
	Location string      `json:"location"`
	Target   MountTarget `json:"target"`
}) (any, error) {
	if err := p.Target.PackageID.check(); err != nil {
		return nil, err
	}
	if p.Target.VolumeID != "BACKUP" {
		if err := ID(p.Target.VolumeID).check(); err != nil {
			return nil, err
		}
	}
	if p.Location == "" {
		return nil, invalid("location is missing")
	}
	return nil, h.Host.MountVolume(ctx, p.Location, p.Target)
}

// bindMount is ours: the container's own program asks for id-mapped binds of
// the package's volumes, which only the host can make.
func bindMount(ctx context.Context, h *Handler, p struct {
	Source   string  `json:"source"`
	Target   string  `json:"target"`
	ReadOnly bool    `json:"readonly"`
	File     bool    `json:"file"`
	IDMap    []IDMap `json:"idmap"`
}) (any, error) {
	if p.Source == "" || p.Target == "" {
		return nil, invalid("source or target is missing")
	}
	return nil, h.Host.OwnMount(ctx, p.Source, p.Target, p.ReadOnly, p.File, p.IDMap)
}
