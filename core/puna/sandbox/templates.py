"""A template of a model or a request as the core holds it, and the decision where it runs.

A small Go template over small data runs in the core: puna.go.template charges each step to a budget of some
milliseconds, so the run is known to end. A run that spends its budget begins anew in a worker, where all larger ones
run. A Jinja template always runs in a worker, since no list of what Jinja can do would be complete.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, Final

from puna.errors import TemplateLimitError
from puna.go.template import facts
from puna.go.template.budget import Budget, BudgetSpentError
from puna.go.template.facts import Facts
from puna.go.template.parser import parse
from puna.go.template.template import Template as GoTree
from puna.limits import PREFIX, Limits
from puna.messages import Message, Think, Tool
from puna.prompt.go_template.render import render_go, render_suffix
from puna.prompt.jinja import known
from puna.prompt.layout import OutputLayout
from puna.prompt.rendered import RenderedPrompt
from puna.sandbox import wire
from puna.sandbox.lanes import Lanes
from puna.sandbox.process import Template
from puna.sandbox.wire import JSON

SMALL_SOURCE: Final = 8192
"""Longest Go template, in characters, that is parsed in the core: the densest takes 40 ms."""
SMALL_TEXTS: Final = 256 << 10
"""Most characters of messages that a Go template gets in the core."""
SMALL_DATA: Final = 16 << 10
"""Most characters of tools and of arguments of calls, which are parsed."""
UNITS: Final = 10_000
"""Budget of a run in the core. See puna.go.template.budget."""
REQUEST: Final = "request"
"""Name in the fair queue of all templates that requests bring."""
# Even an empty message costs the evaluator some steps, so many empty ones must not pass for little data.
_EACH: Final = 256
"""Characters that each message, call or tool counts in addition to its own."""


def check_source(text: str, limits: Limits) -> None:
    """Raise TemplateLimitError for a source that is too long."""
    # The number of characters is compared first, so that a huge text is not encoded just to be measured.
    if len(text) > limits.template_bytes or len(text.encode("utf-8", "surrogatepass")) > limits.template_bytes:
        raise TemplateLimitError(f"{limits.template_bytes} bytes", f"{PREFIX}TEMPLATE_BYTES")


def check_texts(texts: Iterable[str], limits: Limits) -> None:
    """Raise TemplateLimitError for texts that exceed the output limit, before they are sent to a worker."""
    if sum(map(len, texts)) > limits.template_output_bytes:
        raise TemplateLimitError(f"{limits.template_output_bytes} bytes of text", f"{PREFIX}TEMPLATE_OUTPUT_BYTES")


class GoTemplate:
    """A Go template. Safe to share."""

    def __init__(self, text: str, lanes: Lanes, limits: Limits, name: str = REQUEST) -> None:
        """`name` identifies the template in the fair queue of a lane."""
        self._text = text
        self._lanes = lanes
        self._limits = limits
        self._name = name

    async def render(self, messages: Sequence[Message], tools: Sequence[Tool], think: Think | None) -> str:
        """Render a conversation. The template sees the number of media, not their content. Raises TemplateError."""
        check_texts((each.content for each in messages), self._limits)
        budget = _budget(messages, tools)
        # A template only asks whether there are images. Megabytes of pixels need not cross to a worker.
        shown = [replace(each, media=(b"",) * len(each.media)) if each.media else each for each in messages]
        return await self._run(
            budget,
            lambda: render_go(self._tree, shown, tools, think, budget),
            lambda: {
                "ask": "go",
                "messages": wire.messages_out(shown),
                "tools": wire.tools_out(tools),
                "think": wire.think_out(think),
            },
        )

    async def fill(self, prompt: str, suffix: str, think: Think | None) -> str:
        """Render a prompt for filling the gap between two texts. Raises TemplateError."""
        check_texts((prompt, suffix), self._limits)
        small = len(prompt) + len(suffix) <= SMALL_TEXTS
        budget = Budget(UNITS) if small else None
        return await self._run(
            budget,
            lambda: render_suffix(self._tree, prompt, suffix, think, budget),
            lambda: {"ask": "suffix", "texts": [prompt, suffix], "think": wire.think_out(think)},
        )

    async def facts(self) -> Facts:
        """Return the facts of the template, read in a worker. Raises TemplateError."""
        check_source(self._text, self._limits)
        found: Facts = await self._lanes.ask(self._name, Template(self._text), {"ask": "facts"}, wire.facts_in)
        return found

    def facts_here(self) -> Facts:
        """Return the facts of the template, read in this thread. Raises TemplateError."""
        check_source(self._text, self._limits)
        return facts.of(self._tree)

    @property
    def small(self) -> bool:
        """Whether the template may be parsed in the core."""
        return len(self._text) <= SMALL_SOURCE

    @cached_property
    def _tree(self) -> GoTree:
        return parse(self._text)

    async def _run(self, budget: Budget | None, here: Callable[[], str], there: Callable[[], dict[str, JSON]]) -> str:
        check_source(self._text, self._limits)
        if self.small and budget is not None:
            try:
                return here()
            # A worker has no budget, only a deadline. The run starts from the beginning there.
            except (BudgetSpentError, RecursionError):
                pass
        text: str = await self._lanes.ask(self._name, Template(self._text), there(), wire.text)
        return text


def _budget(messages: Sequence[Message], tools: Sequence[Tool]) -> Budget | None:
    """Return the budget of a run over this data in the core; None if there is too much data for the core."""
    texts = sum(
        _size(each.role, each.content, each.thinking, each.tool_name, each.tool_call_id) + len(each.media)
        for each in messages
    )
    data = sum(_size(call.name, call.arguments, call.id) for each in messages for call in each.tool_calls)
    data += sum(_size(each.name, each.description, each.parameters, each.type, each.items) for each in tools)
    if texts > SMALL_TEXTS or data > SMALL_DATA:
        return None
    # `bulk` pays for reading the data before the first step: parsed JSON costs more per character than plain text.
    return Budget(UNITS, bulk=(data >> 3) + (texts >> 6))


def _size(*texts: str) -> int:
    return _EACH + sum(map(len, texts))


class ChatTemplate:
    """A Jinja chat template of a model file, with the BOS and EOS text of the model. Safe to share."""

    def __init__(
        self,
        source: str,
        bos_text: str,
        eos_text: str,
        lanes: Lanes,
        limits: Limits,
        *,
        tool_source: str = "",
        adds_bos: bool = False,
        adds_eos: bool = False,
    ) -> None:
        """See puna.prompt.jinja.template.ChatTemplate for what these are."""
        self._sources = (source, tool_source)
        self._template = Template([source, tool_source, bos_text, eos_text, adds_bos, adds_eos])
        self._lanes = lanes
        self._limits = limits
        self._layouts: dict[bool, OutputLayout] = {}

    async def layout(self, *, tools: bool) -> OutputLayout:
        """Return how output will be laid out, in conversations with or without tools. Raises TemplateError."""
        # Without a template of its own for tools, a conversation with tools has the same layout as one without.
        tools = tools and bool(self._sources[1])
        if tools not in self._layouts:
            # Known layouts are found by the source's text, whose line breaks differ between files.
            source = self._sources[tools].replace("\r\n", "\n").replace("\r", "\n")
            # Deriving a layout renders several conversations in a worker, so it is done once for each template.
            self._layouts[tools] = known.layout(source) or known.corrected(
                await self._ask({"ask": "layout", "tools": tools}, wire.layout_in), source
            )
        return self._layouts[tools]

    async def turn(
        self, messages: Sequence[Message], tools: Sequence[Tool], think: Think | None, *, reads: bool
    ) -> RenderedPrompt:
        """Return the prompt, and where `reads` what of the answer it holds already.

        Raises TemplateRefusedError and TemplateError.
        """
        check_texts((each.content for each in messages), self._limits)
        request = {
            "ask": "turn",
            "messages": wire.messages_out(messages),
            "tools": wire.tools_out(tools),
            "think": wire.think_out(think),
            "reads": reads,
        }
        prompt: RenderedPrompt = await self._ask(request, _written)
        return prompt

    async def _ask(self, request: dict[str, JSON], read: Callable[[JSON], Any]) -> Any:  # noqa: ANN401
        for source in self._sources:
            check_source(source, self._limits)
        # The queue goes by the template, so that two names of one model share their turn.
        return await self._lanes.ask(self._template.key, self._template, request, read)


def _written(value: JSON) -> RenderedPrompt:
    if not isinstance(value, list) or len(value) != 2:
        raise wire.InvalidAnswerError("no prompt")
    return RenderedPrompt(wire.text(value[0]), answer_prefix=wire.text(value[1]))
