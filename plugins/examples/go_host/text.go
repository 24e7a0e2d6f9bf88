package main

import (
	"bytes"
	"strings"
	"unicode/utf8"
)

// An assembly makes text of tokens. It holds back a character that is not complete, and what may be the beginning of a
// stop string. Held bytes are released as a whole.
type assembly struct {
	stops   []string
	waiting []byte
	// stopped is true once a stop string has ended the text; stop is that string.
	stopped bool
	stop    string
}

// feed adds the bytes of a token and returns the text to send now.
func (a *assembly) feed(raw []byte) string {
	a.waiting = append(a.waiting, raw...)
	if !complete(a.waiting) {
		return ""
	}
	first := -1
	for _, stop := range a.stops {
		at := bytes.Index(a.waiting, []byte(stop))
		if at >= 0 && (first < 0 || at < first) {
			first, a.stop, a.stopped = at, stop, true
		}
	}
	if a.stopped {
		return a.release(first)
	}
	for _, stop := range a.stops {
		for length := min(len(stop)-1, len(a.waiting)); length > 0; length-- {
			if bytes.HasSuffix(a.waiting, []byte(stop[:length])) {
				return ""
			}
		}
	}
	return a.release(len(a.waiting))
}

// finish returns the text that waits, when the model itself has ended the answer. Half a character is dropped.
func (a *assembly) finish() string {
	if !complete(a.waiting) {
		a.waiting = nil
	}
	return a.release(len(a.waiting))
}

func (a *assembly) release(length int) string {
	text := a.waiting[:length]
	a.waiting = nil
	if utf8.Valid(text) {
		return string(text)
	}
	// Ranging over a string gives U+FFFD for each byte that is no part of a character.
	var valid strings.Builder
	for _, character := range string(text) {
		valid.WriteRune(character)
	}
	return valid.String()
}

// complete returns whether bytes do not end inside a character. It looks at the first byte of the last character, which
// announces how many follow.
func complete(data []byte) bool {
	for back := 1; back <= min(3, len(data)); back++ {
		first := data[len(data)-back]
		need := 1
		switch {
		case first&0xE0 == 0xC0:
			need = 2
		case first&0xF0 == 0xE0:
			need = 3
		case first&0xF8 == 0xF0:
			need = 4
		}
		if need > back {
			return false
		}
	}
	return true
}
