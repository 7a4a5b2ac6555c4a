package service

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
)

// An effect that is still writing holds up whoever lets the container go, and a
// later one finds the door shut.
func TestNoWriteAfterTheEnd(t *testing.T) {
	t.Parallel()
	r := &instance{}
	inside, finish, shut := make(chan struct{}), make(chan struct{}), make(chan struct{})
	go r.write(func() error { close(inside); <-finish; return nil })
	<-inside
	go func() {
		r.shut()
		close(shut)
	}()
	select {
	case <-shut:
		t.Fatal("it is still writing")
	default:
	}
	close(finish)
	<-shut
	require.ErrorIs(t, r.write(func() error { return errors.New("it writes") }), errGone)
}
