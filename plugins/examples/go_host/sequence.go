package main

import (
	"context"
	"sort"
	"time"

	"puna.dev/examples/go_host/wire"
)

// generate runs one sequence and calls emit with its events. The last one is a finish, unless the context is cancelled
// before or an error is returned.
func (m *model) generate(ctx context.Context, start *wire.StartSequence, step func(), emit func(*wire.SequenceEvent)) error {
	tokens, err := m.prompt(start)
	if err != nil {
		return err
	}
	began := time.Now()
	s := &sequence{
		model:   m,
		start:   start,
		sampler: newSampler(start.Sampling),
		text:    assembly{stops: start.Stop},
		tokens:  tokens,
		prompt:  len(tokens),
	}
	for reason := ""; ; {
		if ctx.Err() != nil {
			return nil // the core does not expect an answer to its cancel
		}
		if s.generated >= start.MaxTokens || !s.makeRoom() {
			reason = "length"
		} else {
			var delta *wire.TextDelta
			delta, reason = s.next()
			step()
			time.Sleep(time.Duration(m.StepMS) * time.Millisecond)
			if delta != nil {
				emit(&wire.SequenceEvent{Event: &wire.SequenceEvent_TextDelta{TextDelta: delta}})
			}
		}
		if reason != "" {
			emit(&wire.SequenceEvent{Event: &wire.SequenceEvent_Finish{Finish: &wire.Finish{
				Length:       reason == "length",
				StopSequence: s.text.stop,
				PromptTokens: int32(s.prompt),
				OutputTokens: s.generated,
				EvalNs:       time.Since(began).Nanoseconds(),
			}}})
			return nil
		}
	}
}

// prompt returns the tokens of a prompt, or the error of a request that this host cannot serve.
func (m *model) prompt(start *wire.StartSequence) ([]int32, error) {
	switch {
	case start.Constraint != nil:
		return nil, invalid("the go_markov backend cannot enforce a format or grammar")
	case len(start.Media) > 0:
		return nil, unsupported("this model takes no images or sounds")
	case start.ScoreFrom != nil:
		return nil, unsupported("the go_markov backend gives no log-probabilities of a prompt")
	case start.Chat != nil:
		return nil, unsupported("the go_markov backend takes a prompt and no messages")
	}
	tokens := start.TokenIds
	if !start.HasTokenIds {
		tokens = tokenize(start.Text, true)
	}
	if err := validate(tokens); err != nil {
		return nil, err
	}
	if len(tokens) >= m.context {
		return nil, tooLong(len(tokens), m.context)
	}
	// Copied with room for the answer, since the message stays in use.
	return append(make([]int32, 0, len(tokens)+256), tokens...), nil
}

// A sequence is a request and how far its answer is.
type sequence struct {
	model     *model
	start     *wire.StartSequence
	sampler   *sampler
	text      assembly
	tokens    []int32
	prompt    int
	generated int32
	logprobs  []*wire.TokenLogprob
}

// makeRoom shifts a full context: it drops the older half of what follows the kept tokens. It returns false if the context
// is full and must not be shifted.
func (s *sequence) makeRoom() bool {
	if len(s.tokens) < s.model.context {
		return true
	}
	keep := int(s.start.KeepTokens)
	if keep < 0 {
		keep = s.prompt
	}
	dropped := (len(s.tokens) - keep) / 2
	if !s.start.Shift || dropped <= 0 {
		return false
	}
	s.tokens = append(s.tokens[:keep], s.tokens[keep+dropped:]...)
	return true
}

// next samples a token. It returns the text that this adds, if any, and why the sequence has ended, if it has.
func (s *sequence) next() (*wire.TextDelta, string) {
	probabilities := s.model.logProbabilities(s.tokens)
	token := s.sampler.choose(probabilities, s.tokens)
	s.generated++
	if s.start.TopLogprobs != nil {
		s.logprobs = append(s.logprobs, logprob(token, probabilities, int(*s.start.TopLogprobs)))
	}
	reason, text := "", ""
	if token == endToken {
		reason, text = "stop", s.text.finish()
	} else {
		s.tokens = append(s.tokens, token)
		if text = s.text.feed(tokenBytes(token, false)); s.text.stopped {
			reason = "stop"
		}
	}
	if text == "" {
		return nil, reason
	}
	delta := &wire.TextDelta{Text: text, Logprobs: s.logprobs}
	s.logprobs = nil
	return delta, reason
}

func logprob(token int32, probabilities []float64, top int) *wire.TokenLogprob {
	of := func(token int32) *wire.TokenLogprob {
		return &wire.TokenLogprob{Raw: tokenBytes(token, true), TokenId: token, Logprob: float32(probabilities[token])}
	}
	order := make([]int32, len(probabilities))
	for index := range order {
		order[index] = int32(index)
	}
	sort.SliceStable(order, func(i, j int) bool { return probabilities[order[i]] > probabilities[order[j]] })
	chosen := of(token)
	for _, other := range order[:min(top, len(order))] {
		chosen.Top = append(chosen.Top, of(other))
	}
	return chosen
}
