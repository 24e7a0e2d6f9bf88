"""Turns the text deltas of a backend into the deltas of an answer, one for each as Ollama streams them.

The parsers (puna.prompt.parsed) take the text apart. This module adds what they do not know: the log-probabilities of
the text, the ids of calls, and which deltas a client sees. A delta that carries nothing is left out, with two
exceptions: Ollama's clients see an empty delta where a text has log-probabilities while the parser of tool calls holds
it back, and for every text of an answer that is not parsed, or that generate parses for thinking only.
"""

import secrets
import string
from collections.abc import Sequence
from dataclasses import replace

from puna.backend import TextDelta
from puna.messages import ToolCall
from puna.prompt.go_template.answer import GoTemplateParser
from puna.prompt.parsed import AnswerParser, ParsedDelta
from puna.serving.answers import Delta


def call_id() -> str:
    """Return a fresh id for a tool call."""
    # Ollama's ids have this form.
    return "call_" + "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(8))


class AnswerReader:
    """Reads one answer."""

    def __init__(
        self,
        parser: AnswerParser,
        *,
        sends_empty: bool = False,
        splits_calls: bool = False,
        calls_at_end: bool = False,
    ) -> None:
        """Read with a fresh parser.

        sends_empty: there is a delta for every text, even an empty one.
        splits_calls: calls follow the content of the same text in a delta of their own.
        calls_at_end: all calls come with the end, without ids, as in generate.
        """
        self._parser = parser
        self._sends_empty = sends_empty
        self._splits_calls = splits_calls
        self._calls_at_end = calls_at_end
        self._late: list[ToolCall] = []

    def feed(self, decoded: TextDelta) -> Sequence[Delta]:
        """Return the deltas for what was decoded: usually one; none if nothing is to be sent for it."""
        parsed = self._parser.feed(decoded.text)
        calls = self._calls(parsed)
        if not (parsed.content or parsed.thinking or calls):
            sent = self._sends_empty or (decoded.logprobs and not parsed.waits)
            return (Delta(logprobs=decoded.logprobs),) if sent else ()
        if calls and parsed.content and self._splits_calls:
            # Ollama loses the calls of a text that has content too.
            content = Delta(text=parsed.content, thinking=parsed.thinking, logprobs=decoded.logprobs)
            return content, Delta(tool_calls=calls)
        return (Delta(text=parsed.content, thinking=parsed.thinking, tool_calls=calls, logprobs=decoded.logprobs),)

    def finish(self) -> Delta:
        """Return what was held back, which travels with the end of the answer."""
        parsed = self._parser.finish()
        calls = self._calls(parsed)
        return Delta(
            text=parsed.content,
            thinking=parsed.thinking,
            tool_calls=tuple(self._late) if self._calls_at_end else calls,
        )

    def _calls(self, parsed: ParsedDelta) -> tuple[ToolCall, ...]:
        # Ollama's generate has calls in its last message only, so its clients look for them there.
        if self._calls_at_end:
            self._late += parsed.calls
            return ()
        # Some formats carry ids of the model's own, which the client must send back with the result. Only missing ids
        # are made up.
        return tuple(call if call.id else replace(call, id=call_id()) for call in parsed.calls)


def plain() -> AnswerReader:
    """Return a reader for which everything is content."""
    return AnswerReader(GoTemplateParser(), sends_empty=True)
