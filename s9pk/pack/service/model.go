package service

import (
	"encoding/json"
	"time"

	"github.com/selfstead/selfstead/s9pk/pack/image"
)

// Service is a service.yaml that Parse has accepted; Schema says what each member
// means.
type Service struct {
	ID           string
	Title        string
	Version      string
	ReleaseNotes json.RawMessage
	License      string
	Description  struct{ Short, Long json.RawMessage }
	Instructions string
	Links        struct{ Upstream, Package, Marketing, Donation string }
	Images       Ordered[Image]
	Volumes      []string
	Hardware     struct {
		RAM            *int64
		GPU, Fuse, Tun bool
	}
	Config       *Config
	Files        []File
	Processes    Ordered[Process]
	Health       Ordered[Health]
	Interfaces   Ordered[Interface]
	Actions      Ordered[Action]
	Tasks        []Task
	Dependencies Ordered[Dependency]
	Alerts       struct{ Install, Update, Restore *string }
	Backup       struct{ Volumes, Exclude []string }
}

// Image is what an image is made of, and for what.
type Image struct {
	image.Source
	Arch             []string `json:"arch"`
	EmulateMissingAs *string  `json:"emulateMissingAs"`
	NVIDIA           bool     `json:"nvidia"`
}

// Config is the form of the settings.
type Config struct {
	Name, Description, Volume, Path string
	Form                            Ordered[Field]
}

// File is a text that is written to a volume.
type File struct {
	Volume, Path, Content, Mode string
	Keep                        bool
}

// Command is a program with its arguments, or a text for a shell.
type Command struct {
	Args  []string
	Shell string
}

// UnmarshalJSON reads a list or a text.
func (c *Command) UnmarshalJSON(text []byte) error {
	if text[0] == '"' {
		return json.Unmarshal(text, &c.Shell)
	}
	return json.Unmarshal(text, &c.Args)
}

// MarshalJSON writes what UnmarshalJSON reads.
func (c Command) MarshalJSON() ([]byte, error) {
	if c.Shell != "" {
		return json.Marshal(c.Shell)
	}
	return json.Marshal(c.Args)
}

// Text is a text, or a number or a truth value as text.
type Text string

// UnmarshalJSON reads any scalar.
func (t *Text) UnmarshalJSON(text []byte) error {
	if text[0] != '"' {
		*t = Text(text)
		return nil
	}
	return json.Unmarshal(text, (*string)(t))
}

// Duration reads as in "30s".
type Duration time.Duration

// UnmarshalJSON reads a text.
func (d *Duration) UnmarshalJSON(text []byte) error {
	var s string
	if err := json.Unmarshal(text, &s); err != nil {
		return err
	}
	v, err := time.ParseDuration(s)
	*d = Duration(v)
	return err
}

// Mount is a volume or the assets in an image.
type Mount struct {
	At, Volume, Dependency, Path string
	Assets, ReadOnly, File       bool
}

// HTTP is a request.
type HTTP struct {
	Port   int    `json:"port"`
	Path   string `json:"path"`
	TLS    bool   `json:"tls"`
	Status []int  `json:"status"`
}

// Check finds out how something is.
type Check struct {
	Port                     *int
	HTTP                     *HTTP
	Exec                     []string
	Success, Failure         string
	Grace, Interval, Timeout *Duration
}

// Ready is a process's own check.
type Ready struct {
	Check
	Name string
}

// Process is something that runs.
type Process struct {
	Image         string
	Command       *Command
	Args          *[]string
	User, WorkDir string
	Env           Ordered[Text]
	Mounts        []Mount
	Oneshot, Init bool
	Requires      []string
	StopTimeout   *Duration
	Ready         *Ready
}

// Health is a check that belongs to no process.
type Health struct {
	Check
	Name, Process string
	Requires      []string
}

// Interface is a way in.
type Interface struct {
	Name, Description, Type, Protocol, Path, Username string
	Port                                              int
	ExternalPort                                      *int
	Masked                                            bool
}

// Action is something that the owner can have done.
type Action struct {
	Name, Description, Warning, Group, When, Access string
	Hidden, Restart                                 bool
	Form                                            Ordered[Field]
	Process, Image, User, WorkDir                   string
	Env                                             Ordered[Text]
	Mounts                                          *[]Mount
	Command                                         Command
	Stdin                                           *string
	Timeout                                         *Duration
	Result                                          struct {
		Kind, Title, Message string
		Copyable             *bool
		QR, Masked           bool
	}
}

// Field is a field of a form.
type Field struct {
	Type, Name, Description, Warning, Placeholder, InputMode, Units string
	Required, Masked, Integer                                       bool
	Default                                                         json.RawMessage
	MinLength, MaxLength                                            *int
	Patterns                                                        []struct {
		Regex       string `json:"regex"`
		Description string `json:"description"`
	}
	Generate *struct {
		Charset string `json:"charset"`
		Len     int    `json:"len"`
	}
	Min, Max, Step *json.Number
	Values         Ordered[string]
}

// Task asks the owner to run an action.
type Task struct{ Action, Severity, Reason string }

// Dependency is another service that this one uses.
type Dependency struct {
	Description, Kind, Version, Title, Icon string
	Optional                                bool
	HealthChecks                            []string
}
