package service

import (
	"context"
	"log/slog"
	"time"
)

// undoLimit bounds the taking back of one piece of work.
const undoLimit = 2 * time.Minute

// undoStack takes work back, the last step first.
type undoStack struct {
	steps []undoStep
}

type undoStep struct {
	name string
	fn   func(ctx context.Context) error
}

func (s *undoStack) push(name string, fn func(ctx context.Context) error) {
	s.steps = append(s.steps, undoStep{name, fn})
}

// run takes everything back. It has its own time: what is taken back was often
// cancelled. Errors are logged, since the one that led here is returned.
func (s *undoStack) run(log *slog.Logger) {
	ctx, cancel := context.WithTimeout(context.Background(), undoLimit)
	defer cancel()
	for i := len(s.steps) - 1; i >= 0; i-- {
		if err := s.steps[i].fn(ctx); err != nil {
			log.Error("taking back a failed step", "step", s.steps[i].name, "err", err)
		}
	}
	s.steps = nil
}
