package main

import (
	"context"
	"io"
	"sync"

	"google.golang.org/grpc"

	"puna.dev/examples/go_host/wire"
)

// A stream runs the sequences of one Run call. Each sequence is a goroutine; one more sends their events.
type stream struct {
	model *model
	work  *work
	slots chan struct{}

	mutex   sync.Mutex
	cancels map[uint64]context.CancelFunc
	events  []*wire.SequenceEvent
	wakeup  chan struct{}
	// taken is closed and replaced whenever events are sent.
	taken chan struct{}
}

func (s *stream) run(call grpc.BidiStreamingServer[wire.RunRequest, wire.RunResponse]) error {
	ctx, cancel := context.WithCancel(call.Context())
	defer cancel()
	var running sync.WaitGroup
	// The model must not be freed while a sequence uses it. `cancel` runs first, as it was deferred last.
	defer running.Wait()
	defer cancel()

	sent := make(chan error, 1)
	go func() { sent <- s.send(ctx, call) }()
	for {
		request, err := call.Recv()
		if err == io.EOF {
			running.Wait()
			s.wake()
			cancel()
			return <-sent
		}
		if err != nil {
			return err
		}
		if start := request.GetStart(); start != nil {
			s.start(ctx, &running, request.SequenceId, start)
		} else {
			s.cancel(request.SequenceId)
		}
	}
}

func (s *stream) start(ctx context.Context, running *sync.WaitGroup, id uint64, start *wire.StartSequence) {
	own, cancel := context.WithCancel(ctx)
	s.mutex.Lock()
	s.cancels[id] = cancel
	s.mutex.Unlock()
	running.Add(1)
	go func() {
		defer running.Done()
		defer cancel()
		select {
		case s.slots <- struct{}{}:
			defer func() { <-s.slots }()
		case <-own.Done():
			return
		}
		defer s.work.begin()()
		emit := func(event *wire.SequenceEvent) { s.emit(own, id, event) }
		if err := s.model.generate(own, start, s.work.step, emit); err != nil {
			emit(&wire.SequenceEvent{Event: &wire.SequenceEvent_Failure{Failure: failureOf(err)}})
		}
	}()
}

// cancel ends a sequence. No event of it is sent from now on. A sequence that has ended is not known any more.
func (s *stream) cancel(id uint64) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if cancel := s.cancels[id]; cancel != nil {
		cancel()
		delete(s.cancels, id)
	}
	kept := s.events[:0]
	for _, event := range s.events {
		if event.SequenceId != id {
			kept = append(kept, event)
		}
	}
	s.events = kept
}

// emit hands an event to the sender and waits until it is sent, so that no sequence runs ahead of the others.
func (s *stream) emit(ctx context.Context, id uint64, event *wire.SequenceEvent) {
	event.SequenceId = id
	s.mutex.Lock()
	taken := s.taken
	if _, known := s.cancels[id]; known {
		s.events = append(s.events, event)
		if event.GetTextDelta() == nil {
			delete(s.cancels, id) // a finish or a failure is the last event
		}
	}
	s.mutex.Unlock()
	s.wake()
	select {
	case <-taken:
	case <-ctx.Done():
	}
}

func (s *stream) wake() {
	select {
	case s.wakeup <- struct{}{}:
	default: // it is awake
	}
}

// send sends the events that are ready, as many as there are in one message, until the context ends.
func (s *stream) send(ctx context.Context, call grpc.BidiStreamingServer[wire.RunRequest, wire.RunResponse]) error {
	for done := false; !done; {
		select {
		case <-s.wakeup:
		case <-ctx.Done():
			done = true // after the last events
		}
		s.mutex.Lock()
		events, taken := s.events, s.taken
		s.events, s.taken = nil, make(chan struct{})
		s.mutex.Unlock()
		if len(events) > 0 {
			if err := call.Send(&wire.RunResponse{Events: events}); err != nil {
				return err
			}
		}
		close(taken)
	}
	return nil
}
