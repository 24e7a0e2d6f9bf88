"""One turn of a conversation: its prompt, and the reader of its answer.

Three ways to read an answer exist, one for each way in which the prompt was rendered: the parser of a builtin renderer,
the output layout of the model file's Jinja template, and the tags of a Go template.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from puna.backend import Constraint
from puna.capabilities import PARSERS, THINKING
from puna.messages import Message, Think, Tool
from puna.prompt.builtin import call_layouts
from puna.prompt.builtin.interface import Parser
from puna.prompt.call_deltas import notations
from puna.prompt.go_template.answer import GoTemplateParser
from puna.prompt.go_template.thinking import ThinkingParser
from puna.prompt.go_template.tool_calls import ToolCallParser
from puna.prompt.jinja import parsers
from puna.prompt.layout import OutputLayout
from puna.prompt.rendered import RenderedPrompt
from puna.prompt.tool_grammar import grammar as tool_grammar
from puna.runtime.requirements import Lease
from puna.serving.access import ResolvedModel
from puna.serving.answer_parsers import AnswerReader, plain
from puna.serving.call_deltas import CallDeltas
from puna.serving.conversation import Conversation, assembled
from puna.serving.requests import ChatRequest

_SPECIAL: Final = re.compile(r"\[[^\]]*\]|<[^>]*>")


@dataclass(frozen=True, slots=True)
class ChatTurn:
    """One turn of a conversation: the prompt, and how the answer is read."""

    found: ResolvedModel
    conversation: Conversation
    messages: tuple[Message, ...]
    """All messages, before truncation."""
    prompt: RenderedPrompt
    tools: Sequence[Tool]
    think: Think | None
    thinking: ThinkingParser | None
    parser: Parser | None
    must_call: bool = False
    """Whether the answer must be a tool call."""
    offered: Sequence[Tool] = ()
    """The tools under their own names; a parser may have renamed those in `tools`."""
    layout: OutputLayout | None = None
    """Output layout of the model file's Jinja template; None if another template is used."""
    tool_call_deltas: bool = False
    """Whether the client wants the arguments of calls while they are written."""

    def anew(self) -> "ChatTurn":
        """Return the turn for another answer to the same prompt. Parsers keep the state of one answer."""
        parser = self.found.templates.parser() if self.parser is not None else None
        if parser is not None:
            parser.init(self.offered, self.messages[-1], self.think)
        return replace(self, parser=parser, thinking=self.thinking.anew() if self.thinking is not None else None)

    def tool_call_constraint(self) -> Constraint | None:
        """Return the constraint for an answer that must be a tool call; None if the notation of calls is not known."""
        if not self.tools:
            return None
        if self.parser is not None:
            written = call_layouts.CALL_LAYOUTS.get(self.found.templates.parser_name)
            return tool_grammar.from_layout(self.tools, written, self.preserved) if written else None
        if self.layout is not None:
            return tool_grammar.from_layout(self.tools, self.layout, self.preserved)
        return tool_grammar.behind_tag(self.tools, self.found.templates.tool_tag, self.preserved)

    @property
    def preserved(self) -> tuple[str, ...]:
        """Special tokens that the parsers must see in the text."""
        if self.layout is not None:
            return self.layout.preserved_tokens
        if self.parser is not None:
            return tuple(self.parser.preserved_tokens)
        # A tag that is one special token would not be in the text unless it is preserved.
        tag = _SPECIAL.match(self.found.templates.tool_tag) if self.tools else None
        return (tag[0],) if tag else ()

    def reader(self, *, thought: bool = False) -> AnswerReader:
        """Return a reader for the answer. With `thought`, only the part after the thinking follows."""
        # Behind the thinking, constrained content has no markers left to take apart.
        if self.conversation.native and thought and not self.must_call:
            return plain()
        deltas = self.call_deltas()
        if self.layout is not None:
            parser = parsers.parser(self.layout, self.tools, self.prompt.answer_prefix, self.think)
            return AnswerReader(parser, call_deltas=deltas)
        if self.parser is not None:
            return AnswerReader(self.parser, call_deltas=deltas)
        tools = ToolCallParser(self.tools, self.found.templates.tool_tag) if self.tools else None
        thinking = None if thought else self.thinking
        if not (thinking or tools):
            return plain()
        return AnswerReader(GoTemplateParser(thinking, tools), splits_calls=True, call_deltas=deltas)

    def call_deltas(self) -> CallDeltas | None:
        """Return the maker of the deltas of calls for one answer. None: the client wants none, or offers no tools."""
        if not (self.tool_call_deltas and self.tools):
            return None
        if self.layout is not None:
            return CallDeltas(notations.of_layout(self.layout, self.tools), self.tools)
        if self.parser is not None:
            return CallDeltas(notations.of_parser(self.found.templates.parser_name, self.tools), self.tools)
        return CallDeltas(notations.of_go_template(self.tools), self.tools)

    def may_think(self) -> bool:
        """Return whether the model may think before the content, in a way that the reader recognises."""
        if THINKING not in self.found.model.capabilities:
            return False
        if self.parser is not None:
            thinks = THINKING in PARSERS.get(self.found.templates.parser_name, ())
            return thinks and not (self.think is not None and not self.think.on)
        return self.conversation.native or self.thinking is not None


async def chat_turn(found: ResolvedModel, lease: Lease, request: ChatRequest, think: Think | None) -> ChatTurn:
    """Render the prompt of a request. Raises TemplateError, ContextOverflowError and InvalidRequestError."""
    model, templates = found.model, found.templates
    tools: Sequence[Tool] = tool_grammar.offered(request.tools, request.tool_choice)
    offered = tools
    messages = assembled(model, model.messages, model.system, request.messages)
    parser = templates.parser()
    # The parser may rename tools whose names its format cannot write. The renderer must use the same names.
    if parser is not None:
        tools = parser.init(tools, messages[-1], think)
    renderer = templates.renderer()
    conversation = Conversation(
        model=model,
        templates=templates,
        lease=lease,
        renderer=renderer,
        native=model.mode == "native",
        marks=renderer is None and model.mode != "native",
        tools=tools,
        think=think,
        truncate=request.options.truncate,
        reads=not request.render_only,
    )
    prompt = await conversation.prompt(messages, request.options.constraint, early=request.render_only)
    thinking = None
    if parser is None and not conversation.native and think is not None and think.on and templates.thinking_tags:
        opening, closing = templates.thinking_tags
        # Some templates open the thinking in the prompt, so the answer begins inside it.
        thinking = ThinkingParser(opening, closing, started=prompt.text.rstrip().endswith(opening))
    must_call = request.tool_choice.mode == "required" and request.options.constraint is None
    layout = await templates.chat_template(lease.facts).layout(tools=bool(tools)) if conversation.native else None
    return ChatTurn(
        found=found,
        conversation=conversation,
        messages=tuple(messages),
        prompt=prompt,
        tools=tools,
        think=think,
        thinking=thinking,
        parser=parser,
        must_call=must_call,
        offered=offered,
        layout=layout,
        tool_call_deltas=request.tool_call_deltas,
    )
