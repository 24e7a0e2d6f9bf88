package main

import (
	"math"
	"testing"

	"puna.dev/examples/go_host/wire"
)

// Three tokens of probabilities 0.5, 0.3 and 0.2.
var probabilities = []float64{math.Log(0.5), math.Log(0.3), math.Log(0.2)}

func frequencies(sampling *wire.Sampling, history ...int32) [3]float64 {
	const draws = 20000
	seed := uint32(1)
	sampling.Seed = &seed
	if sampling.TypicalP == 0 {
		sampling.TypicalP = 1
	}
	s := newSampler(sampling)
	var found [3]float64
	for range draws {
		found[s.choose(probabilities, history)] += 1.0 / draws
	}
	return found
}

func TestFrequenciesFollowTheParameters(t *testing.T) {
	cases := []struct {
		name     string
		sampling *wire.Sampling
		history  []int32
		want     [3]float64
	}{
		{"temperature 1", &wire.Sampling{Temperature: 1, TopP: 1}, nil, [3]float64{0.5, 0.3, 0.2}},
		{"temperature 0", &wire.Sampling{TopP: 1}, nil, [3]float64{1, 0, 0}},
		{"temperature 0.5", &wire.Sampling{Temperature: 0.5, TopP: 1}, nil, [3]float64{25. / 38, 9. / 38, 4. / 38}},
		{"top-k", &wire.Sampling{Temperature: 1, TopP: 1, TopK: 2}, nil, [3]float64{0.625, 0.375, 0}},
		{"top-p", &wire.Sampling{Temperature: 1, TopP: 0.6}, nil, [3]float64{0.625, 0.375, 0}},
		{"typical-p", &wire.Sampling{Temperature: 1, TopP: 1, TypicalP: 0.25}, nil, [3]float64{0, 1, 0}},
		{"min-p", &wire.Sampling{Temperature: 1, TopP: 1, MinP: 0.5}, nil, [3]float64{0.625, 0.375, 0}},
		{"bias", &wire.Sampling{TopP: 1, LogitBias: map[int32]float32{2: 5}}, nil, [3]float64{0, 0, 1}},
		{"repeat penalty", &wire.Sampling{TopP: 1, RepeatPenalty: 9, RepeatLastN: -1}, []int32{0}, [3]float64{0, 1, 0}},
		{"presence", &wire.Sampling{TopP: 1, PresencePenalty: 1, RepeatLastN: -1}, []int32{0}, [3]float64{0, 1, 0}},
		{"frequency", &wire.Sampling{TopP: 1, FrequencyPenalty: 1, RepeatLastN: -1}, []int32{0, 0, 1}, [3]float64{0, 0, 1}},
		{"beyond the window", &wire.Sampling{TopP: 1, PresencePenalty: 1, RepeatLastN: 1}, []int32{0, 2}, [3]float64{1, 0, 0}},
	}
	for _, each := range cases {
		t.Run(each.name, func(t *testing.T) {
			found := frequencies(each.sampling, each.history...)
			for token := range found {
				if math.Abs(found[token]-each.want[token]) > 0.02 {
					t.Fatalf("the tokens came with %v, not %v", found, each.want)
				}
			}
		})
	}
}

func TestEverySeedDrawsAnew(t *testing.T) {
	first := func(seed uint32) (drawn [8]int32) {
		s := newSampler(&wire.Sampling{Temperature: 1, TopP: 1, TypicalP: 1, Seed: &seed})
		for index := range drawn {
			drawn[index] = s.choose(probabilities, nil)
		}
		return drawn
	}
	if first(7) != first(7) {
		t.Error("one seed gives two results")
	}
	different := map[[8]int32]bool{}
	for seed := range uint32(20) {
		different[first(seed)] = true
	}
	if len(different) < 10 {
		t.Errorf("20 seeds give %d results", len(different))
	}
}
