package main

import (
	"bytes"
	"math"
	"os"
)

const (
	// smoothing is the probability that is shared by all tokens, so that none is impossible.
	smoothing = 1e-6
	// weight is how much more a context counts than the one that is a byte shorter.
	weight       = 50.0
	dimensions   = 64
	maxFileBytes = 16 << 20
)

// counts tells how often each token followed a context.
type counts struct {
	of    map[int32]float64
	total float64
}

// A model predicts the next byte by the bytes before it. It is a Markov chain of several orders at once.
type model struct {
	options
	after     map[string]*counts
	fileBytes int64
	context   int
	parallel  int
}

// loadModel counts the bytes of a text. Blank lines end answers.
func loadModel(path string, chosen options, context, parallel int) (*model, error) {
	info, err := os.Stat(path)
	if err != nil || !info.Mode().IsRegular() {
		return nil, invalid("the file %q does not exist", path)
	}
	if info.Size() > maxFileBytes {
		return nil, invalid("the file has more than %d bytes", maxFileBytes)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, invalid("%v", err)
	}
	m := &model{options: chosen, after: map[string]*counts{}, fileBytes: info.Size(), context: context, parallel: parallel}
	for _, answer := range bytes.Split(text, []byte("\n\n")) {
		m.learn(answer)
	}
	if len(m.after) == 0 {
		return nil, invalid("the file holds no text")
	}
	return m, nil
}

func (m *model) learn(answer []byte) {
	if len(answer) == 0 {
		return
	}
	for at := 0; at <= len(answer); at++ {
		next := int32(endToken)
		if at < len(answer) {
			next = int32(answer[at])
		}
		for length := 0; length <= min(m.Order, at); length++ {
			context := string(answer[at-length : at])
			if m.after[context] == nil {
				m.after[context] = &counts{of: map[int32]float64{}}
			}
			m.after[context].of[next]++
			m.after[context].total++
		}
	}
}

// logProbabilities returns the natural logarithm of each token's probability after these tokens.
func (m *model) logProbabilities(tokens []int32) []float64 {
	context := make([]byte, 0, m.Order)
	for at := len(tokens) - 1; at >= 0 && len(context) < m.Order && tokens[at] != endToken; at-- {
		context = append([]byte{byte(tokens[at])}, context...)
	}
	probabilities := make([]float64, vocabulary)
	share := 1.0
	all := 0.0
	for length := 0; length <= len(context); length++ {
		found := m.after[string(context[len(context)-length:])]
		if found == nil {
			break // a longer context has not occurred either
		}
		for token, count := range found.of {
			probabilities[token] += share * count / found.total
		}
		all += share
		share *= weight
	}
	for token := range probabilities {
		probabilities[token] = math.Log((1-smoothing)*probabilities[token]/all + smoothing/vocabulary)
	}
	return probabilities
}

// embed returns a vector that counts the groups of three bytes of a text, by their hash.
func (m *model) embed(tokens []int32, raw bool) []float32 {
	padded := append(append([]int32{endToken, endToken}, tokens...), endToken, endToken)
	vector := make([]float64, dimensions)
	for at := 2; at < len(padded); at++ {
		hash := uint32(2166136261)
		for _, token := range padded[at-2 : at+1] {
			hash = (hash ^ uint32(token)) * 16777619
		}
		// The upper bits of the hash decide the sign, so that texts which share nothing are at right angles.
		vector[hash%dimensions] += 1 - 2*float64(hash>>31)
	}
	length := 0.0
	for _, value := range vector {
		length += value * value
	}
	length = math.Sqrt(length)
	if raw || length == 0 {
		length = 1
	}
	scaled := make([]float32, dimensions)
	for index, value := range vector {
		scaled[index] = float32(value / length)
	}
	return scaled
}
