package s9pk

// Parts of a manifest stand by themselves in other documents, as they do in it.

func marshalPart(write func(*jsonWriter)) ([]byte, error) {
	w := &jsonWriter{first: true}
	write(w)
	return w.b, nil
}

func unmarshalPart[T any](into *T, b []byte, read func(d *manifestDecoder, v jsonValue) T) error {
	v, err := parseJSON(b)
	if err != nil {
		return &FieldError{"", err.Error()}
	}
	d := &manifestDecoder{}
	t := read(d, v)
	if err := d.err(); err != nil {
		return err
	}
	*into = t
	return nil
}

// MarshalJSON writes the requirements as they stand in a manifest.
func (h HardwareRequirements) MarshalJSON() ([]byte, error) { return marshalPart(h.write) }

// UnmarshalJSON reads the requirements as they stand in a manifest.
func (h *HardwareRequirements) UnmarshalJSON(b []byte) error {
	return unmarshalPart(h, b, func(d *manifestDecoder, v jsonValue) HardwareRequirements { return d.hardware("", v) })
}

// MarshalJSON writes the image as it stands in a manifest.
func (img Image) MarshalJSON() ([]byte, error) { return marshalPart(img.write) }

// UnmarshalJSON reads an image as it stands in a manifest.
func (img *Image) UnmarshalJSON(b []byte) error {
	return unmarshalPart(img, b, func(d *manifestDecoder, v jsonValue) Image { return d.image("", v) })
}

// MarshalJSON writes the dependency as it stands in a manifest.
func (dep Dependency) MarshalJSON() ([]byte, error) { return marshalPart(dep.write) }

// UnmarshalJSON reads a dependency as it stands in a manifest.
func (dep *Dependency) UnmarshalJSON(b []byte) error {
	return unmarshalPart(dep, b, func(d *manifestDecoder, v jsonValue) Dependency { return d.dependency("", v) })
}
