package service

import "time"

// longestPause is what the pauses between tries grow to; tries never end.
const longestPause = time.Minute

// backoff is the pause before the next try after n failures in a row: the first
// is at once, then 1 s, 2 s, 4 s, ... up to longestPause.
func backoff(n int) time.Duration {
	if n <= 1 {
		return 0
	}
	return min(time.Second<<min(n-2, 10), longestPause)
}
