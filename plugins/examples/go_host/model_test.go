package main

import (
	"math"
	"os"
	"path/filepath"
	"testing"

	"puna.dev/examples/go_host/wire"
)

func load(t *testing.T, text string) *model {
	t.Helper()
	path := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	loaded, err := loadModel(path, options{Order: 3}, 1000, 1)
	if err != nil {
		t.Fatal(err)
	}
	return loaded
}

func TestTheTextIsContinued(t *testing.T) {
	m := load(t, "the sky is blue\n\nthe sea is deep")
	var text string
	var finish *wire.Finish
	start := &wire.StartSequence{Text: "the sky", MaxTokens: 100, Sampling: &wire.Sampling{}}
	err := m.generate(t.Context(), start, func() {}, func(event *wire.SequenceEvent) {
		text += event.GetTextDelta().GetText()
		finish = event.GetFinish()
	})
	if err != nil || text != " is blue" || finish.Length || finish.PromptTokens != 7 || finish.OutputTokens != 9 {
		t.Errorf("got %q, %v, %v", text, finish, err)
	}
}

func TestProbabilitiesAddUpToOne(t *testing.T) {
	m := load(t, "the sky is blue\n\nthe sea is deep")
	for _, prompt := range []string{"", "t", "the s", "unknown <|end|>"} {
		sum := 0.0
		for _, logarithm := range m.logProbabilities(tokenize(prompt, true)) {
			sum += math.Exp(logarithm)
		}
		if math.Abs(sum-1) > 1e-9 {
			t.Errorf("after %q they add up to %v", prompt, sum)
		}
	}
}

func TestAFullContextIsShifted(t *testing.T) {
	s := &sequence{model: &model{context: 8}, start: &wire.StartSequence{Shift: true, KeepTokens: 2}}
	s.tokens = []int32{0, 1, 2, 3, 4, 5, 6, 7}
	if !s.makeRoom() || len(s.tokens) != 5 || s.tokens[1] != 1 || s.tokens[2] != 5 {
		t.Errorf("left %v", s.tokens)
	}
	s.start.Shift, s.tokens = false, make([]int32, 8)
	if s.makeRoom() {
		t.Error("it was shifted although it must not be")
	}
}
