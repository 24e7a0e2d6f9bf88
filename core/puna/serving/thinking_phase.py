"""The first of two sequences of a chat with structured output: the thinking, to which the constraint does not apply.

The constraint applies to the content alone, and a backend applies a constraint from the first token. So this sequence
runs without it, and is cancelled when the content begins. A second sequence with the constraint continues after the
thinking. Its prompt is mostly cached, since it extends the first.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

from puna.backend import Constraint, Finish, Prefill, TextDelta
from puna.messages import Message, Think
from puna.prompt.builtin import harmony
from puna.prompt.go_template.answer import GoTemplateParser
from puna.prompt.rendered import RenderedPrompt
from puna.serving.answer_parsers import AnswerReader, plain
from puna.serving.answers import Event, Progress
from puna.serving.chat_turn import ChatTurn
from puna.serving.sequence_builder import SequenceBuilder
from puna.serving.sequence_runner import run


class ThinkingPhase:
    """The first of two sequences: it runs without the constraint until content begins."""

    def __init__(
        self, turn: ChatTurn, builder: SequenceBuilder, prompt: RenderedPrompt, constraint: Constraint
    ) -> None:
        self._turn = turn
        self._constraint = constraint
        self._builder = builder
        self._prompt = prompt
        self._thinking_deltas: list[str] = []
        self._raw = ""
        self.finish: Finish | None = None
        """The end of the sequence, if it ended before any content."""
        self.spent = 0
        """Tokens of this sequence that are added to the count of the second one.

        Ollama runs one sequence where the model file's own template is used, so its counts include the thinking.
        """
        self.cut = 0
        self.cached = 0
        """Tokens of the prompt that were cached before the phase."""
        self.thinking_tokens = 0
        """Tokens of the thinking if there is a budget for it. A sequence that is cancelled has no count of its own, so
        decoding steps with thinking are counted."""

    async def events(self) -> AsyncGenerator[Event]:
        """Yield the thinking, and return when content begins."""
        turn = self._turn
        # Calls of this sequence are written again by the second one, so they have no deltas here.
        quiet = replace(turn, tool_call_deltas=False)
        reader = AnswerReader(GoTemplateParser(turn.thinking)) if turn.thinking else quiet.reader()
        sequence, self.cut = await self._builder.sequence(
            self._prompt.text, self._prompt.media, markers=reader.thinking_markers
        )
        native = turn.conversation.native
        # An impossible constraint must be refused before the first delta. This sequence of no tokens has it compiled,
        # and it evaluates the prompt, which is then cached.
        check = replace(sequence, constraint=self._constraint, max_tokens=0, thinking_budget=None)
        async with aclosing(run(self._builder.lease.model, check, guarded=False)) as events:
            async for event in events:
                if isinstance(event, Prefill):
                    yield Progress(phase="prefill", done_tokens=event.done_tokens, total_tokens=event.total_tokens)
                elif isinstance(event, Finish):
                    self.cached = event.cached_prompt_tokens
        async with aclosing(run(self._builder.lease.model, sequence, guarded=not native)) as events:
            async for event in events:
                if isinstance(event, Prefill):
                    yield Progress(phase="prefill", done_tokens=event.done_tokens, total_tokens=event.total_tokens)
                elif isinstance(event, Finish):
                    self.finish = event
                    self.thinking_tokens = event.thinking_tokens
                elif isinstance(event, TextDelta):
                    self._raw += event.text
                    # `native` is a bool that counts as 0 or 1.
                    self.spent += native
                    for delta in reader.feed(event):
                        self._thinking_deltas.append(delta.thinking)
                        self.thinking_tokens += bool(delta.thinking and sequence.thinking_budget)
                        if delta.tool_calls and turn.must_call:
                            # The second sequence writes the call again, under the constraint.
                            return
                        if not delta.text:
                            yield delta
                            continue
                        # The content that has just begun is written again under the constraint, so it must leave the
                        # prompt of the second sequence.
                        self._raw = self._raw.removesuffix(delta.text)
                        if delta.thinking or (turn.thinking and any(self._thinking_deltas)):
                            yield replace(delta, text="", logprobs=())
                        return

    async def second_prompt(self) -> RenderedPrompt:
        """Return the prompt of the second sequence, which ends with a message that has thinking and no content yet."""
        turn, thought = self._turn, "".join(self._thinking_deltas)
        if not thought:
            return self._prompt
        if turn.conversation.native:
            # The raw text keeps the thinking exactly as the model wrote it, so that the cached prefix is as long as it
            # can be.
            return replace(self._prompt, text=self._prompt.text + self._raw)
        again = await turn.conversation.prompt([*turn.messages, Message(role="assistant", thinking=thought)])
        is_harmony = turn.found.model.is_harmony or turn.found.model.config.parser == "harmony"
        if not is_harmony:
            return again
        return replace(again, text=again.text + (harmony.NEXT if turn.must_call else harmony.FINAL))

    def next_reader(self) -> AnswerReader:
        """Return the reader for the second sequence, which does not think."""
        turn = self._turn
        if turn.parser is not None and turn.must_call:
            # A fresh parser without thinking. The first one has consumed the thinking and stands in the middle of an
            # answer.
            parser = turn.found.templates.parser() or turn.parser
            # Parsers rename tools in `init`, so they get the original names again.
            parser.init(turn.offered, turn.messages[-1], Think(False))
            return AnswerReader(parser, call_deltas=turn.call_deltas())
        if self.finish is not None and turn.parser is not None:
            # The first sequence ended inside the thinking, and the parser would take the content for more of it.
            return plain()
        return turn.reader(thought=True)
