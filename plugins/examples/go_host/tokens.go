package main

import "strings"

// A token is a byte, or the end of an answer.
const (
	endToken   = 256
	vocabulary = 257
	endText    = "<|end|>"
)

// tokenize returns the ids of a text. The spelling of the end token is recognised if parseSpecial.
func tokenize(text string, parseSpecial bool) []int32 {
	tokens := make([]int32, 0, len(text))
	for len(text) > 0 {
		if parseSpecial && strings.HasPrefix(text, endText) {
			tokens = append(tokens, endToken)
			text = text[len(endText):]
			continue
		}
		tokens = append(tokens, int32(text[0]))
		text = text[1:]
	}
	return tokens
}

// tokenBytes returns the bytes of a token; none for the end token unless special.
func tokenBytes(token int32, special bool) []byte {
	if token != endToken {
		return []byte{byte(token)}
	}
	if special {
		return []byte(endText)
	}
	return nil
}

// validate returns an error for an id that the vocabulary does not have.
func validate(tokens []int32) error {
	for _, token := range tokens {
		if token < 0 || token >= vocabulary {
			return invalid("the vocabulary has no token %d", token)
		}
	}
	return nil
}
