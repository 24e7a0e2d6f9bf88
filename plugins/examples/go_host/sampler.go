package main

import (
	"math"
	"math/rand/v2"
	"sort"

	"puna.dev/examples/go_host/wire"
)

// A sampler chooses tokens. It applies penalties, top-k, typical-p, top-p, min-p and temperature, in this order.
type sampler struct {
	wire   *wire.Sampling
	random *rand.Rand
}

func newSampler(sampling *wire.Sampling) *sampler {
	seed := rand.Uint64()
	if sampling.GetSeed() != 0 || (sampling != nil && sampling.Seed != nil) {
		seed = uint64(sampling.GetSeed())
	}
	return &sampler{wire: sampling, random: rand.New(rand.NewPCG(seed, 0))}
}

type candidate struct {
	token int32
	logit float64
}

// choose returns the next token. The log-probabilities are not changed; history has the prompt and the answer so far.
func (s *sampler) choose(logProbabilities []float64, history []int32) int32 {
	candidates := make([]candidate, len(logProbabilities))
	for token, logit := range logProbabilities {
		candidates[token] = candidate{int32(token), logit + float64(s.wire.GetLogitBias()[int32(token)])}
	}
	s.penalize(candidates, history)
	sort.SliceStable(candidates, func(i, j int) bool { return candidates[i].logit > candidates[j].logit })
	temperature := float64(s.wire.GetTemperature())
	if temperature <= 0 {
		return candidates[0].token
	}
	if k := int(s.wire.GetTopK()); k > 0 && k < len(candidates) {
		candidates = candidates[:k]
	}
	candidates = s.nucleus(s.typical(candidates))
	weights := softmax(candidates, temperature)
	at := s.random.Float64()
	for index, weight := range weights {
		if at -= weight; at < 0 {
			return candidates[index].token
		}
	}
	return candidates[len(candidates)-1].token
}

// penalize lowers the logits of the tokens that have occurred lately.
func (s *sampler) penalize(candidates []candidate, history []int32) {
	last := int(s.wire.GetRepeatLastN())
	if last < 0 || last > len(history) {
		last = len(history)
	}
	seen := map[int32]int{}
	for _, token := range history[len(history)-last:] {
		seen[token]++
	}
	repeat := float64(s.wire.GetRepeatPenalty())
	for token, times := range seen {
		logit := &candidates[token].logit
		if repeat > 0 && *logit > 0 {
			*logit /= repeat
		} else if repeat > 0 {
			*logit *= repeat
		}
		*logit -= float64(s.wire.GetPresencePenalty()) + float64(times)*float64(s.wire.GetFrequencyPenalty())
	}
}

// typical keeps the candidates whose surprise is nearest to the mean surprise, up to a total probability of typical-p.
func (s *sampler) typical(candidates []candidate) []candidate {
	limit := float64(s.wire.GetTypicalP())
	if limit >= 1 {
		return candidates
	}
	weights := softmax(candidates, 1)
	entropy := 0.0
	for _, weight := range weights {
		if weight > 0 {
			entropy -= weight * math.Log(weight)
		}
	}
	order := make([]int, len(candidates))
	for index := range order {
		order[index] = index
	}
	distance := func(index int) float64 { return math.Abs(-math.Log(weights[index]) - entropy) }
	sort.SliceStable(order, func(i, j int) bool { return distance(order[i]) < distance(order[j]) })
	sum, kept := 0.0, 0
	for kept < len(order) && (kept == 0 || sum < limit) {
		sum += weights[order[kept]]
		kept++
	}
	chosen := make([]candidate, kept)
	sort.Ints(order[:kept]) // most probable first again
	for index, from := range order[:kept] {
		chosen[index] = candidates[from]
	}
	return chosen
}

// nucleus keeps the candidates, in order of their logits, that top-p and min-p keep; the first one always.
func (s *sampler) nucleus(candidates []candidate) []candidate {
	weights := softmax(candidates, 1)
	topP, minP := float64(s.wire.GetTopP()), float64(s.wire.GetMinP())
	sum, kept := 0.0, 0
	for kept < len(candidates) {
		if kept > 0 && ((topP < 1 && sum >= topP) || weights[kept] < minP*weights[0]) {
			break
		}
		sum += weights[kept]
		kept++
	}
	return candidates[:kept]
}

func softmax(candidates []candidate, temperature float64) []float64 {
	weights := make([]float64, len(candidates))
	sum := 0.0
	for index, each := range candidates {
		weights[index] = math.Exp((each.logit - candidates[0].logit) / temperature)
		sum += weights[index]
	}
	for index := range weights {
		weights[index] /= sum
	}
	return weights
}
