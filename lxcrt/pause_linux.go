package lxcrt

import "time"

// pause waits between the tries of a bounded loop, longer as they add up: 100
// microseconds at first, 5 milliseconds at most.
func pause(try int) {
	time.Sleep(min(time.Duration(try+1)*100*time.Microsecond, 5*time.Millisecond))
}
