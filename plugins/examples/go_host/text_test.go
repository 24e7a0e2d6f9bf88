package main

import "testing"

func TestTextIsHeldBack(t *testing.T) {
	cases := []struct {
		name   string
		stops  []string
		tokens []string
		sent   []string
		stop   string
		rest   string
	}{
		{"plain", nil, []string{"a", "b"}, []string{"a", "b"}, "", ""},
		{"half characters wait", nil, []string{"\xf0", "\x9f", "\x99", "\x82", "!"}, []string{"", "", "", "🙂", "!"}, "", ""},
		{"a stop string ends the text", []string{"STOP"}, []string{"a S", "TO", "P b"}, []string{"", "", "a "}, "STOP", ""},
		{"its beginning alone does not", []string{"STOP"}, []string{"S", "O", "S"}, []string{"", "SO", ""}, "", "S"},
		{"the earliest counts", []string{"b", "ab"}, []string{"xaby"}, []string{"x"}, "ab", ""},
		{"an empty one ends at once", []string{""}, []string{"a"}, []string{""}, "", ""},
		{"a wrong byte is replaced", nil, []string{"a\xffb"}, []string{"a\uFFFDb"}, "", ""},
		{"half a character at the end is dropped", nil, []string{"a", "\xe2\x82"}, []string{"a", ""}, "", ""},
	}
	for _, each := range cases {
		t.Run(each.name, func(t *testing.T) {
			text := assembly{stops: each.stops}
			for index, token := range each.tokens {
				if sent := text.feed([]byte(token)); sent != each.sent[index] {
					t.Errorf("token %d gave %q, not %q", index, sent, each.sent[index])
				}
			}
			if text.stop != each.stop {
				t.Errorf("it ended with %q, not %q", text.stop, each.stop)
			}
			if rest := text.finish(); rest != each.rest {
				t.Errorf("the rest was %q, not %q", rest, each.rest)
			}
		})
	}
}
