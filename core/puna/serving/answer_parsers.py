"""Turns the text deltas of a backend into the deltas of an answer, one for each as Ollama streams them.

The parsers (puna.prompt.parsed) take the text apart. This module adds what they do not know: the log-probabilities of
the text, the ids of calls, and which deltas a client sees. A delta that carries nothing is left out, with two
exceptions: Ollama's clients see an empty delta where a text has log-probabilities while the parser of tool calls holds
it back, and for every text of an answer that is not parsed, or that generate parses for thinking only.
"""

from collections.abc import Sequence
from dataclasses import replace

from puna.backend import TextDelta, ThinkingMarkers
from puna.messages import ToolCall
from puna.prompt.go_template.answer import GoTemplateParser
from puna.prompt.parsed import AnswerParser, MarksThinking, ParsedDelta, ShowsOpenCalls
from puna.serving.answers import Delta
from puna.serving.call_deltas import CallDeltas, call_id


class AnswerReader:
    """Reads one answer."""

    def __init__(
        self,
        parser: AnswerParser,
        *,
        sends_empty: bool = False,
        splits_calls: bool = False,
        calls_at_end: bool = False,
        call_deltas: CallDeltas | None = None,
    ) -> None:
        """Read with a fresh parser.

        sends_empty: there is a delta for every text, even an empty one.
        splits_calls: calls follow the content of the same text in a delta of their own.
        calls_at_end: all calls come with the end, without ids, as in generate.
        call_deltas: makes the deltas of calls; None: there are none.
        """
        self._parser = parser
        self._sends_empty = sends_empty
        self._splits_calls = splits_calls
        self._calls_at_end = calls_at_end
        self._call_deltas = call_deltas
        self._shows_calls = parser if call_deltas is not None and isinstance(parser, ShowsOpenCalls) else None
        self._late: list[ToolCall] = []
        self._passes_all = isinstance(parser, GoTemplateParser) and parser.passes_all and call_deltas is None

    @property
    def thinking_markers(self) -> ThinkingMarkers | None:
        """The texts around the thinking, before the first text is read; None: the answer cannot have thinking."""
        return self._parser.thinking_markers() if isinstance(self._parser, MarksThinking) else None

    def feed(self, decoded: TextDelta) -> Sequence[Delta]:
        """Return the deltas for what was decoded: usually one; none if nothing is to be sent for it."""
        # Most answers are not parsed, and each token of them passes here.
        if self._passes_all and decoded.text:
            return (Delta(text=decoded.text, logprobs=decoded.logprobs),)
        parsed = self._parser.feed(decoded.text)
        if self._call_deltas is not None:
            return self._with_call_deltas(decoded, parsed, self._call_deltas)
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
        if self._call_deltas is not None:
            deltas, calls = self._call_deltas.advance("", parsed.calls, None)
            return Delta(
                text=parsed.content, thinking=parsed.thinking, tool_calls=calls, tool_call_deltas=tuple(deltas)
            )
        calls = self._calls(parsed)
        return Delta(
            text=parsed.content,
            thinking=parsed.thinking,
            tool_calls=tuple(self._late) if self._calls_at_end else calls,
        )

    def _with_call_deltas(self, decoded: TextDelta, parsed: ParsedDelta, call_deltas: CallDeltas) -> Sequence[Delta]:
        """Return the deltas as `feed` does, with those of calls, which follow the content of the same text."""
        opened = self._shows_calls.open_calls if self._shows_calls is not None else None
        deltas, calls = call_deltas.advance(decoded.text, parsed.calls, opened)
        if not (parsed.content or parsed.thinking or calls or deltas):
            return (Delta(logprobs=decoded.logprobs),) if decoded.logprobs and not parsed.waits else ()
        delta = Delta(
            text=parsed.content,
            thinking=parsed.thinking,
            tool_calls=calls,
            logprobs=decoded.logprobs,
            tool_call_deltas=tuple(deltas),
        )
        return (delta,)

    def _calls(self, parsed: ParsedDelta) -> tuple[ToolCall, ...]:
        # Ollama's generate has calls in its last message only, so its clients look for them there.
        if self._calls_at_end:
            self._late += parsed.calls
            return ()
        if not parsed.calls:
            return ()
        # Some formats carry ids of the model's own, which the client must send back with the result. Only missing ids
        # are made up.
        return tuple(call if call.id else replace(call, id=call_id()) for call in parsed.calls)


def plain() -> AnswerReader:
    """Return a reader for which everything is content."""
    return AnswerReader(GoTemplateParser(), sends_empty=True)
