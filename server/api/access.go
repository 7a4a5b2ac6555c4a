package api

import "time"

// Grant is a package that may open connections to another one.
type Grant struct {
	Client   string     `json:"client" doc:"id of the package that may" example:"dashboard"`
	Declared bool       `json:"declared" doc:"its manifest declares the dependency, so nobody has to grant it"`
	Granted  *time.Time `json:"granted,omitempty" doc:"since when the owner grants it"`
}
