package api

import "time"

// Grant is a package that may open connections to another one.
type Grant struct {
	Client   string     `json:"client" doc:"id of the package that may" example:"dashboard"`
	Declared bool       `json:"declared" doc:"its manifest declares the dependency, so nobody has to grant it"`
	Granted  *time.Time `json:"granted,omitempty" doc:"since when the owner grants it"`
}

// Limits bound what a package takes of the machine; what is left out is the
// default, or no limit.
type Limits struct {
	Memory    *int64   `json:"memory,omitempty" minimum:"134217728" doc:"bytes of memory" example:"1073741824"`
	CPUs      *float64 `json:"cpus,omitempty" minimum:"0.05" maximum:"4096" doc:"processors: 1.5 is one and a half" example:"1.5"`
	CPUWeight *int     `json:"cpuWeight,omitempty" minimum:"1" maximum:"10000" doc:"its share while processors are short, against 100 of each other package" example:"50"`
	PIDs      *int64   `json:"pids,omitempty" minimum:"64" maximum:"4194304" doc:"tasks, threads included" example:"4096"`
}

// PackageLimits are the limits of one package.
type PackageLimits struct {
	Set       Limits `json:"set" doc:"what its owner has set"`
	Default   Limits `json:"default" doc:"what holds where nothing is set; memory covers what the package's manifest asks for"`
	Effective Limits `json:"effective" doc:"what is in force"`
}
